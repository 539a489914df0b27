"""Makes the tables of accounts, sessions and login attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Adds; nothing that runs now reads them yet."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.Text),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("password_changed_at", time, nullable=False),
        sa.Column("created_at", time, nullable=False),
    )
    op.create_index("users_email", "users", ["email"], unique=True)
    op.create_index("users_username", "users", [sa.text("lower(username)")], unique=True)
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column(
            "user_id", sa.Uuid, sa.ForeignKey("users.id", name="sessions_user"), nullable=False
        ),
        sa.Column("created_at", time, nullable=False),
        sa.Column("last_used_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
    )
    op.create_index("sessions_of_user", "sessions", ["user_id", "created_at", "id"])
    op.create_index("sessions_expired", "sessions", ["expires_at"])
    op.create_table(
        "attempts",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("ends_at", time, nullable=False),
    )
    op.create_index("attempts_expired", "attempts", ["ends_at"])
