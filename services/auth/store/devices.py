"""Network addresses from which accounts were logged in to, as keyed hashes."""

from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.tables import devices

# The most that an account knows: the latest.
MOST_DEVICES = 20


async def is_known(connection: AsyncConnection, device: bytes) -> bool:
    """Whether some account knows this device; its hash depends on the account."""
    query = select(exists().where(devices.c.device == device))
    return bool((await connection.execute(query)).scalar_one())


async def learn(connection: AsyncConnection, user_id: str, device: bytes) -> None:
    """Lets the account know this device, and forget those beyond MOST_DEVICES."""
    owner = UUID(user_id)
    query = insert(devices).values(device=device, user_id=owner, last_used_at=func.now())
    query = query.on_conflict_do_update(
        index_elements=[devices.c.device], set_={"last_used_at": query.excluded.last_used_at}
    )
    await connection.execute(query)
    latest = (
        select(devices.c.device)
        .where(devices.c.user_id == owner)
        .order_by(devices.c.last_used_at.desc(), devices.c.device)
        .offset(MOST_DEVICES)
    )
    await connection.execute(delete(devices).where(devices.c.device.in_(latest)))
