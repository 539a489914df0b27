"""Makes the table of the network addresses that accounts know."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    op.create_table(
        "devices",
        sa.Column("device", sa.LargeBinary, primary_key=True),
        sa.Column(
            "user_id", sa.Uuid, sa.ForeignKey("users.id", name="devices_user"), nullable=False
        ),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("devices_of_user", "devices", ["user_id", "last_used_at"])
