"""Adds settings of keys, their previous secrets, and stored credentials of providers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds only: what runs now neither reads nor writes any of it."""
    for column in (
        sa.Column("token_limit_per_minute", sa.Integer),
        sa.Column("monthly_budget", sa.BigInteger),
        sa.Column("total_budget", sa.BigInteger),
        sa.Column("soft_budget", sa.BigInteger),
        sa.Column("previous_digest", sa.LargeBinary),
        sa.Column("previous_expires_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("api_keys", column)
    op.create_unique_constraint(
        "api_keys_previous_digest_is_unique", "api_keys", ["previous_digest"]
    )
    op.create_table(
        "provider_credentials",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("last_four", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("owner_id", "provider", name="provider_credentials_one_of_owner"),
    )
