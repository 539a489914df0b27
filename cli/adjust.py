"""`khesht adjust`: corrects what a generation cost, as the operator of this machine's mesh."""

from decimal import Decimal

import grpc

from cli.settings import LocalSettings
from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import client
from mesh.access import OPERATOR
from mesh.local import certificates, home, state
from mesh.local.errors import LocalError
from mesh.tls import Certificate

_NANOS = 10**9


async def adjust(
    settings: LocalSettings, generation_id: str, seq: int, usd: Decimal, note: str
) -> None:
    """Adds `usd` to the cost of the generation. May be repeated: `seq` says which time it is.

    Raises LocalError when usage does not run in the home, or refuses.
    """
    place = home.find_home(settings.home)
    mesh = state.status(place)
    addresses = [each.address for each in mesh.processes if each.name == "usage"] if mesh else []
    if not addresses:
        raise LocalError(f"no mesh runs in {place.root}")
    files = certificates.issue(place.certs, [OPERATOR])[OPERATOR]
    certificate = Certificate.read(files.cert, files.key, files.ca)
    async with client.channel("usage", addresses[0], certificate) as channel:
        request = pb.AdjustUsageRequest(
            generation_id=generation_id, seq=seq, cost_delta=round(usd * _NANOS), note=note
        )
        try:
            await pb_grpc.UsageInternalServiceStub(channel).AdjustUsage(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            raise LocalError(f"not adjusted: {error.details()}") from None
