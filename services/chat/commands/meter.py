"""Tells keys how many tokens those have used whom it allows only so many a minute."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import structlog

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from mesh.grouped import Grouped
from services.chat.commands.budget import Spender

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("meter")

_MOST_AT_ONCE = 500
_TOLD_WITHIN = 3.0


@dataclass(slots=True)
class Meter:
    """One per process."""

    keys: "pb_grpc.KeysInternalServiceAsyncStub"
    _telling: Grouped[pb.SpentTokens, None] = field(init=False)

    def __post_init__(self) -> None:
        """Prepares to tell in groups."""
        self._telling = Grouped(self._tell, _MOST_AT_ONCE)

    async def spend(self, spender: Spender, tokens: int) -> None:
        """Takes `tokens` from the minute of the key or the account, if keys can be told.

        It is not told twice: what was lost on the way would count double.
        """
        spent = pb.SpentTokens(tokens=tokens)
        if spender.key_id is not None:
            spent.key_id = str(spender.key_id)
        else:
            spent.user_id = str(spender.user_id)
        await self._telling.do(spent)

    async def _tell(self, spent: Sequence[pb.SpentTokens]) -> Sequence[None]:
        try:
            await self.keys.SpendTokens(pb.SpendTokensRequest(spent=spent), timeout=_TOLD_WITHIN)
        except grpc.aio.AioRpcError as error:
            log.warning("tokens are not counted", count=len(spent), error=error.code().name)
        return [None] * len(spent)
