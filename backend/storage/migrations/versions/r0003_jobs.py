"""What a job is called by its agent, and what is left of one that has expired."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change nothing yet."""
