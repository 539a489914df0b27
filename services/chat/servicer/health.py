"""How the mesh does, for whoever watches it."""

from collections.abc import Collection

from khesht.chat.v1 import health_service_pb2 as pb
from khesht.chat.v1 import health_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.server import Context
from services.chat.commands.health import Health


class HealthServicer(pb_grpc.HealthServiceServicer):
    """Serves `khesht.chat.v1.HealthService`."""

    def __init__(self, health: Health, providers: Collection[str]) -> None:
        """Takes who knows how the mesh does, and the providers that can be called."""
        self._health = health
        self._providers = {
            name: "healthy" if name == "echo" else "configured" for name in sorted(providers)
        }

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Says how the mesh does. Raises Degraded when a part is not well."""
        condition = await self._health.condition()
        services = {
            name: "unhealthy" if wrong else "healthy" for name, wrong in condition.services.items()
        }
        if condition.problems:
            body = {
                "status": "degraded",
                "services": services,
                "providers": self._providers,
                "problems": condition.problems,
            }
            text = "; ".join(condition.problems)
            raise errors.Degraded("UNAVAILABLE", text, metadata=services, body=body)
        return pb.GetHealthResponse(status="healthy", services=services, providers=self._providers)
