"""Makes the tables of generations and of background tasks."""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    _generations()
    op.create_table(
        "journal",
        sa.Column("generation_id", sa.Uuid, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("base", sa.Integer, primary_key=True),
        sa.Column("pieces", sa.Integer, nullable=False),
        sa.Column("parts", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "runners",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("seen_at", _MOMENT, nullable=False),
    )
    # The queue's own tables, as its release has them.
    op.get_bind().exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))


def _generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("caller_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("key_id", sa.Uuid),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("chat_id", sa.Uuid),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("prompt_price", sa.BigInteger, nullable=False),
        sa.Column("completion_price", sa.BigInteger, nullable=False),
        sa.Column("prompt_size", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("runner_id", sa.Uuid),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("question", sa.Text),
        sa.Column("prompt", sa.Text),
        sa.Column("dedup_key", sa.Text),
        sa.Column("dedup_body", sa.LargeBinary),
        sa.Column("cancel_asked", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("base", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("given_up_prompt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("given_up_completion", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reason", sa.Text),
        sa.Column("answered_by", sa.Text),
        sa.Column("finish_reason", sa.Text),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("basis", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("tail", sa.LargeBinary),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("ended_at", _MOMENT),
        sa.Column("owed", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("generations_newest_of_user", "generations", ["user_id", "created_at", "id"])
    op.create_index(
        "generations_of_a_request",
        "generations",
        ["caller_id", "dedup_key"],
        unique=True,
        postgresql_where=sa.text("dedup_key IS NOT NULL"),
    )
    op.create_index(
        "generations_running",
        "generations",
        ["runner_id"],
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )
    op.create_index(
        "generations_owed", "generations", ["created_at", "id"], postgresql_where=sa.text("owed")
    )
    op.create_index("generations_ended", "generations", ["ended_at"])
