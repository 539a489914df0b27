"""How the mesh does, for whoever watches it."""

from khesht.chat.v1 import health_service_pb2 as pb
from khesht.chat.v1 import health_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.server import Context
from services.chat.commands.health import Health
from services.chat.providers.router import Router


class HealthServicer(pb_grpc.HealthServiceServicer):
    """Serves `khesht.chat.v1.HealthService`."""

    def __init__(self, health: Health, router: Router) -> None:
        """Takes who knows how the mesh does, and who knows how providers do."""
        self._health = health
        self._router = router

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Says how the mesh does. Raises Degraded when a part is not well.

        A provider that is left alone is named, but is no part of the mesh: no restart
        of ours mends it, and models elsewhere answer.
        """
        condition = await self._health.condition()
        services = {
            name: "unhealthy" if wrong else "healthy" for name, wrong in condition.services.items()
        }
        if condition.problems:
            body = {
                "status": "degraded",
                "services": services,
                "providers": self._router.states,
                "problems": condition.problems,
            }
            text = "; ".join(condition.problems)
            raise errors.Degraded("UNAVAILABLE", text, metadata=services, body=body)
        return pb.GetHealthResponse(
            status="healthy", services=services, providers=self._router.states
        )
