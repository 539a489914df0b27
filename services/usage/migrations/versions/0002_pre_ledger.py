"""Makes the ledger: balances, holds, adjustments and budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# What was recorded before there were balances counts in them.
_BALANCES_OF_RECORDS = """
INSERT INTO balances (scope, scope_id, period, spent, reserved)
SELECT place.scope, place.scope_id, place.period, sum(cost), 0
FROM usage_records CROSS JOIN LATERAL (
  SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month
) AS began CROSS JOIN LATERAL (
  VALUES ('key', key_id, month), ('key', key_id, 'total'),
    ('user', user_id, month), ('user', user_id, 'total')
) AS place (scope, scope_id, period)
WHERE place.scope_id IS NOT NULL
GROUP BY place.scope, place.scope_id, place.period
"""


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    op.create_table(
        "usage_adjustments",
        sa.Column(
            "generation_id",
            sa.Uuid,
            sa.ForeignKey("usage_records.generation_id", name="adjustments_of_a_record"),
            primary_key=True,
        ),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cost_delta", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
        ),
    )
    op.create_table(
        "balances",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("scope_id", sa.Uuid, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.CheckConstraint("scope IN ('key', 'user')", name="balances_scope"),
        sa.CheckConstraint("reserved >= 0", name="balances_reserved"),
    )
    op.create_table(
        "holds",
        sa.Column("generation_id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("key_id", sa.Uuid),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount >= 0", name="holds_amount"),
    )
    op.create_table(
        "budgets",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("monthly", sa.BigInteger),
        sa.Column("total", sa.BigInteger),
        sa.Column("soft", sa.BigInteger),
    )
    op.execute(_BALANCES_OF_RECORDS)
