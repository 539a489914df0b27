"""What each RPC that manages keys does: one transaction over the store."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from mesh import errors, pages
from mesh.db import Database
from services.keys import secret
from services.keys.domain.keys import Draft, Key, Verdict
from services.keys.secret import Digests
from services.keys.store import keys as store

_ENDED = {
    Verdict.REVOKED: ("KEY_REVOKED", "the API key was revoked"),
    Verdict.EXPIRED: ("KEY_EXPIRED", "the API key has expired"),
    Verdict.UNKNOWN: ("KEY_REVOKED", "the API key is gone"),
}


class Keys:
    """The keys of one owner at a time."""

    def __init__(
        self,
        database: Database,
        tokens: pages.PageTokens,
        digests: Digests,
        changed: Callable[[UUID], None],
        default_limit: int,
        most: int,
    ) -> None:
        """Takes what to call with a key that changed, so that this replica knows at once.

        An owner may have `most` keys that are good.
        """
        self._database = database
        self._tokens = tokens
        self._digests = digests
        self._changed = changed
        self._default_limit = default_limit
        self._most = most

    async def create(self, owner_id: UUID, draft: Draft) -> tuple[Key, str]:
        """The new key and its secret, which is not to be had again.

        Raises FailedPrecondition when the owner has as many as may be.
        """
        made = secret.new_secret()
        key = Key(
            id=uuid4(),
            owner_id=owner_id,
            name=draft.name,
            key_prefix=secret.prefix(made),
            digest=self._digests.of(made),
            rate_limit_per_minute=draft.rate_limit_per_minute or self._default_limit,
            allowed_models=draft.allowed_models,
            expires_at=draft.expires_at,
            created_at=datetime.now(UTC),
            token_limit_per_minute=draft.token_limit_per_minute,
            monthly_budget=draft.monthly_budget,
            total_budget=draft.total_budget,
            soft_budget=draft.soft_budget,
        )
        if not await self._database.run(lambda c: store.create_key(c, key, self._most)):
            raise errors.FailedPrecondition(
                "TOO_MANY_KEYS", f"an account may have {self._most} keys; revoke one first"
            )
        return key, made

    async def get(self, owner_id: UUID, key_id: UUID) -> Key:
        """The key. Raises NotFound."""
        key = await self._database.run(lambda c: store.get_key(c, owner_id, key_id))
        if key is None:
            raise _missing()
        return key

    async def states(
        self, in_use: Sequence[tuple[UUID, str]]
    ) -> Sequence[tuple[errors.Unauthenticated | None, Key | None]]:
        """What became of keys, each by its id and the name of a secret or "".

        Of one that may not call any more, what its caller is told; and the key as it is.
        """
        ids = {key_id for key_id, _ in in_use}
        found = await self._database.run_one(lambda c: store.keys_by_id(c, ids))
        now = datetime.now(UTC)
        keys = [(found.get(key_id), secret_id) for key_id, secret_id in in_use]
        return [
            (_ended(key.standing_by(secret_id, now) if key else Verdict.UNKNOWN), key)
            for key, secret_id in keys
        ]

    async def list(self, owner_id: UUID, page_size: int, page_token: str) -> tuple[list[Key], str]:
        """A page of keys, and the token of the next or "". Raises InvalidRequest."""
        name, size = f"keys/{owner_id}", pages.size(page_size)
        place = self._tokens.read(name, page_token)
        after = (datetime.fromisoformat(place[0]), UUID(place[1])) if place else None
        found = await self._database.run(
            lambda c: store.list_keys(c, owner_id, after=after, limit=size + 1)
        )
        page = found[:size]
        if len(found) <= size:
            return page, ""
        return page, self._tokens.write(name, [page[-1].created_at, page[-1].id])

    async def update(
        self, owner_id: UUID, key_id: UUID, draft: Draft, fields: Collection[str]
    ) -> Key:
        """The key with `fields` as in `draft`. Raises NotFound, FailedPrecondition."""
        limit = draft.rate_limit_per_minute or self._default_limit
        whole = replace(draft, rate_limit_per_minute=limit)
        if fields:
            key = await self._database.run(
                lambda c: store.update_key(c, owner_id, key_id, whole, fields)
            )
            if key is not None:
                self._changed(key_id)
                return key
        return _unrevoked(await self.get(owner_id, key_id))

    async def rotate(
        self, owner_id: UUID, key_id: UUID, grace: timedelta, expires_at: datetime | None = None
    ) -> tuple[Key, str]:
        """The key and its new secret; the one it had is good for `grace` more.

        Raises NotFound, FailedPrecondition, and InvalidRequest for a key that has expired,
        unless it is given a new end.
        """
        made = secret.new_secret()
        digest, prefix = self._digests.of(made), secret.prefix(made)
        until = datetime.now(UTC) + grace
        key = await self._database.run(
            lambda c: store.rotate_key(c, owner_id, key_id, digest, prefix, until, expires_at)
        )
        if key is None:
            raise _missing()
        self._changed(key_id)
        if _unrevoked(key).digest != digest:
            raise errors.invalid("expires_at", "the key has expired; give it another end")
        return key, made

    async def revoke(self, owner_id: UUID, key_id: UUID) -> None:
        """Revokes for good; again, it changes nothing. Raises NotFound."""
        now = datetime.now(UTC)
        if not await self._database.run(lambda c: store.revoke_key(c, owner_id, key_id, now)):
            raise _missing()
        self._changed(key_id)


def _ended(standing: Verdict) -> errors.Unauthenticated | None:
    told = _ENDED.get(standing)
    return errors.Unauthenticated(*told) if told else None


def _unrevoked(key: Key) -> Key:
    if key.revoked_at is not None:
        raise errors.FailedPrecondition("KEY_REVOKED", "the key was revoked")
    return key


def _missing() -> errors.NotFound:
    return errors.NotFound("KEY_NOT_FOUND", "no such key")
