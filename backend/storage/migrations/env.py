"""What alembic runs for each upgrade: the pending revisions, on the connection that `revisions.upgrade` gives it."""

from __future__ import annotations

from alembic import context

# The connection is in a transaction already: all revisions stay together, or none of them.
context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
