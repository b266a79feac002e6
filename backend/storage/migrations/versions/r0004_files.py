"""The files of a job: mesh in several formats, previews, image and cut-out."""

from __future__ import annotations

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Change nothing yet."""
