"""Adds to tasks when it is their turn, so that accounts take turns."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OPEN = sa.text("turn IS NOT NULL AND status IN ('pending', 'running')")


def upgrade() -> None:
    """Adds; tasks that wait already have no turn, and go before those of later turns."""
    op.add_column("generations", sa.Column("turn", sa.Integer))
    op.create_index(
        "generations_turns_of_user", "generations", ["user_id", "turn"], postgresql_where=_OPEN
    )
    op.create_index("generations_turns", "generations", ["status", "turn"], postgresql_where=_OPEN)
