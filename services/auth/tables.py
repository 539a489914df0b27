"""Tables of auth. They lie in the schema of the service's own role."""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
)

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", Text),
    # In lower case.
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("password_changed_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
Index("users_email", users.c.email, unique=True)
Index("users_username", func.lower(users.c.username), unique=True)

# A session that ended is gone; one that expired is swept at some later login.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", name="sessions_user"), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("user_agent", Text, nullable=False),
    # How many refresh tokens were spent: the number of the one that is good now.
    Column("generation", Integer, nullable=False),
    Index("sessions_of_user", "user_id", "created_at", "id"),
    Index("sessions_expired", "expires_at"),
)

# Where an account was logged in to from: keyed hashes of the account and a network address.
devices = Table(
    "devices",
    metadata,
    Column("device", LargeBinary, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", name="devices_user"), nullable=False),
    Column("last_used_at", DateTime(timezone=True), nullable=False),
    Index("devices_of_user", "user_id", "last_used_at"),
)

# Failed logins, or registrations, in the window that ends at `ends_at`, by account, client
# address or both.
attempts = Table(
    "attempts",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Index("attempts_expired", "ends_at"),
)
