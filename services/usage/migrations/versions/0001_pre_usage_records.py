"""Makes the table of usage records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SUMMED_UP = ["prompt_tokens", "completion_tokens", "cost"]


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    op.create_table(
        "usage_records",
        sa.Column("generation_id", sa.Uuid, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("key_id", sa.Uuid),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("prompt_price", sa.BigInteger, nullable=False),
        sa.Column("completion_price", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("latency_ms", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index(
        "usage_newest_of_user",
        "usage_records",
        ["user_id", "created_at", "generation_id"],
        postgresql_include=_SUMMED_UP,
    )
    op.create_index(
        "usage_newest_of_key",
        "usage_records",
        ["user_id", "key_id", "created_at", "generation_id"],
        postgresql_include=_SUMMED_UP,
    )
