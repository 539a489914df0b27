"""Makes the tables of chats and messages."""

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
