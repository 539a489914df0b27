"""Adds kinds of tokens with their prices, warnings, and prompts counted in tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds; who runs now goes on to write `prompt_size`, in characters, and reads no other."""
    for name in ("kind_prices", "token_kinds", "warning"):
        op.add_column("generations", sa.Column(name, sa.Text))
    op.add_column(
        "generations",
        sa.Column("prompt_estimate", sa.Integer, nullable=False, server_default="0"),
    )
    op.alter_column("generations", "prompt_size", server_default="0")
    op.execute(
        "UPDATE generations SET prompt_estimate = (prompt_size + 3) / 4 WHERE ended_at IS NULL"
    )
    op.create_index(
        "generations_not_stored",
        "generations",
        ["ended_at"],
        postgresql_where=sa.text("warning = 'text-not-stored'"),
    )
