"""Makes the table of items."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    op.create_table(
        "items",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("creation_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("price", sa.Double, nullable=False),
        sa.Column("is_available", sa.Boolean, nullable=False),
    )
    op.create_index("items_of_owner", "items", ["owner_id", "id"])
