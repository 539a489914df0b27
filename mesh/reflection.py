"""Tells those who ask by reflection what the edge serves: all public services, whichever they ask.

The messages of `grpc.reflection.v1` are those of `v1alpha`, by another name.
"""

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from khesht.auth.v1 import auth_service_pb2
from khesht.chat.v1 import (
    chat_service_pb2,
    completions_service_pb2,
    generations_service_pb2,
    health_service_pb2,
    tasks_service_pb2,
)
from khesht.items.v1 import items_service_pb2
from khesht.keys.v1 import keys_service_pb2, provider_credentials_service_pb2
from khesht.usage.v1 import usage_service_pb2

_CONTRACTS = (
    auth_service_pb2,
    chat_service_pb2,
    completions_service_pb2,
    generations_service_pb2,
    health_service_pb2,
    tasks_service_pb2,
    items_service_pb2,
    keys_service_pb2,
    provider_credentials_service_pb2,
    usage_service_pb2,
)
_NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
PUBLIC = tuple(
    service.full_name
    for contract in _CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
)
"""The services that the edge lets callers reach."""


def enable(server: grpc.aio.Server) -> None:
    """Serves reflection."""
    servicer = reflection.aio.ReflectionServicer((*PUBLIC, "grpc.health.v1.Health", *_NAMES))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in _NAMES:
        handler = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))
