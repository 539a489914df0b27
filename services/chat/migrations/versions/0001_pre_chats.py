"""Makes the tables of chats, messages, and what usage is still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Adds; nothing that runs now reads it yet."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "chats",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    )
    op.create_index("chats_of_owner", "chats", ["owner_id", "updated_at", "id"])
    op.create_table(
        "messages",
        sa.Column("place", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False, unique=True),
        sa.Column(
            "chat_id",
            sa.Uuid,
            sa.ForeignKey("chats.id", name="messages_of_a_chat", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("created_at", moment, nullable=False),
    )
    op.create_index("messages_in_chat", "messages", ["chat_id", "place"])
    op.create_table(
        "usage_outbox",
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
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("latency_ms", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
    )
