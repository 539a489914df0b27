"""Adds kinds of tokens, and their prices, to usage records."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KINDS = ("cached_read", "cached_write", "reasoning", "audio_prompt", "audio_completion")
_SUMMED_UP = ["prompt_tokens", "completion_tokens", "cost", *(f"{kind}_tokens" for kind in _KINDS)]
_INDEXES = {
    "usage_newest_of_user": ["user_id", "created_at", "generation_id"],
    "usage_newest_of_key": ["user_id", "key_id", "created_at", "generation_id"],
}


def upgrade() -> None:
    """Adds; who runs now writes none of them, and what it wrote was plain text."""
    for kind in _KINDS:
        column = sa.Column(f"{kind}_tokens", sa.Integer, nullable=False, server_default="0")
        op.add_column("usage_records", column)
    op.add_column("usage_records", sa.Column("kind_prices", sa.ARRAY(sa.BigInteger)))
    # A summary reads the indexes alone.
    for name, by in _INDEXES.items():
        op.drop_index(name, "usage_records")
        op.create_index(name, "usage_records", by, postgresql_include=_SUMMED_UP)
    capped = sa.text("basis = 'capped'")
    op.create_index("usage_capped", "usage_records", ["created_at"], postgresql_where=capped)
