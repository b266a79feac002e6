"""What workers say of themselves: whether their model is compiled, and how long their stages take."""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change nothing yet."""
