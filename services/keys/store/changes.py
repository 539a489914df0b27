"""What replicas of keys tell each other."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

# Told, with the id of a key or an account, when what is known of it has changed.
CHANGES = "khesht_keys_changes"


async def tell(connection: AsyncConnection, changed: UUID) -> None:
    """Tells every replica, when the transaction is committed."""
    await connection.execute(select(func.pg_notify(CHANGES, str(changed))))
