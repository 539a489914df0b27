"""The contracts as the image in gen/ has them, comments included."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from cli import topology

ROOT = Path(__file__).parents[2]
SERVICES = topology.SERVICES
IMAGE = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen" / "khesht.binpb").read_bytes())
FILES = [file for file in IMAGE.file if file.package.startswith("khesht.")]

_ENUM, _VALUE = 5, 2  # Numbers of these fields in the descriptors of a file and an enum.


@dataclass(frozen=True)
class Method:
    """An RPC of the service (process) `service`."""

    service: str
    name: str
    internal: bool
    streams: bool
    response: str
    bindings: tuple[tuple[str, str], ...]


def methods() -> Iterator[Method]:
    """All RPCs of all services."""
    for file in FILES:
        for service in file.service:
            for method in service.method:
                yield Method(
                    service=file.package.split(".")[1],
                    name=f"/{file.package}.{service.name}/{method.name}",
                    internal=service.name.endswith("InternalService"),
                    streams=method.server_streaming,
                    response=method.output_type.removeprefix("."),
                    bindings=tuple(_bindings(method)),
                )


def messages() -> dict[str, descriptor_pb2.DescriptorProto]:
    """All messages by full name."""
    return {f"{file.package}.{each.name}": each for file in FILES for each in file.message_type}


def reasons() -> dict[str, dict[str, str]]:
    """The comments of all reasons but the first, UNSPECIFIED, by package name and reason."""
    found: dict[str, dict[str, str]] = {}
    for file in FILES:
        comments = {
            tuple(location.path): location.leading_comments
            for location in file.source_code_info.location
        }
        for at, enum in enumerate(file.enum_type):
            if enum.name == "ErrorReason":
                found[file.package.split(".")[1]] = {
                    value.name.removeprefix("ERROR_REASON_"): comments[_ENUM, at, _VALUE, number]
                    for number, value in enumerate(enum.value)
                    if number
                }
    return found


def _bindings(method: descriptor_pb2.MethodDescriptorProto) -> Iterator[tuple[str, str]]:
    if method.options.HasExtension(annotations_pb2.http):
        rule = method.options.Extensions[annotations_pb2.http]
        for binding in (rule, *rule.additional_bindings):
            verb = binding.WhichOneof("pattern")
            yield verb.upper(), getattr(binding, verb)
