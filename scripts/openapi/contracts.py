"""The contracts as gen/khesht.binpb has them: methods, messages, reasons, and what is said of each."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from khesht.buf.validate import validate_pb2

ROOT = Path(__file__).parents[2]

# Numbers of fields in the descriptors of files, messages, enums and services: places of comments.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _VALUE, _METHOD = 4, 5, 6, 2, 2, 2
_EXAMPLE = re.compile(r"\s*Example: `(.*)`\s*$")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message. `type_name` is the full name of its message or enum, or ""."""

    descriptor: FieldDescriptorProto
    comment: str

    @property
    def name(self) -> str:
        """The name, also in JSON."""
        return self.descriptor.name

    @property
    def type_name(self) -> str:
        """The full name of the message or enum that it holds, or ""."""
        return self.descriptor.type_name.removeprefix(".")

    @property
    def repeated(self) -> bool:
        """Whether it is a list or a map."""
        return self.descriptor.label == FieldDescriptorProto.LABEL_REPEATED

    @property
    def has_presence(self) -> bool:
        """Whether unset differs from zero; such a field is printed only when it is set."""
        one = self.descriptor.HasField("oneof_index")  # So is a proto3 optional.
        return one or (
            not self.repeated and self.descriptor.type == FieldDescriptorProto.TYPE_MESSAGE
        )

    @property
    def rules(self) -> validate_pb2.FieldRules:
        """What protovalidate holds it to."""
        return self.descriptor.options.Extensions[validate_pb2.field]


@dataclass(frozen=True, slots=True)
class Message:
    """A message; of a map's entry, `is_map` is true and the fields are `key` and `value`."""

    name: str
    comment: str
    fields: tuple[Field, ...]
    is_map: bool
    # Groups of fields of which exactly one must be set.
    choices: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC. `package` is the short name of its service's package, such as `auth`."""

    package: str
    service: str
    name: str
    comment: str
    request: str
    response: str
    streams: bool
    bindings: tuple[http_pb2.HttpRule, ...]

    @property
    def path(self) -> str:
        """The name in access tables."""
        return f"/khesht.{self.package}.v1.{self.service}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a call can be refused: HTTP status and text of its example, and what it means."""

    code: int
    message: str
    meaning: str


class Contracts:
    """All that the REST surface is made of. `services` are comments by name, in order."""

    def __init__(self, image: bytes) -> None:
        """Takes a FileDescriptorSet with comments."""
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, list[str]] = {}
        self.methods: list[Method] = []
        self.services: dict[str, str] = {}
        self.reasons: dict[str, Reason] = {}
        for file in FileDescriptorSet.FromString(image).file:
            if file.package.startswith("khesht."):
                self._read(file)

    def _read(self, file: FileDescriptorProto) -> None:
        comments = {
            tuple(each.path): _unwrap(each.leading_comments)
            for each in file.source_code_info.location
        }
        for at, message in enumerate(file.message_type):
            for found in _messages(
                f"{file.package}.{message.name}", message, (_MESSAGE, at), comments
            ):
                self.messages[found.name] = found
        for at, enum in enumerate(file.enum_type):
            self.enums[f"{file.package}.{enum.name}"] = [value.name for value in enum.value]
            if enum.name == "ErrorReason":
                for number, value in enumerate(enum.value[1:], 1):
                    comment = comments[_ENUM, at, _VALUE, number]
                    self.reasons[value.name.removeprefix("ERROR_REASON_")] = _reason(comment)
        for at, service in enumerate(file.service):
            if service.name.endswith("InternalService"):
                continue
            self.services[service.name] = comments[_SERVICE, at]
            for number, method in enumerate(service.method):
                rule = method.options.Extensions[annotations_pb2.http]
                self.methods.append(
                    Method(
                        package=file.package.split(".")[1],
                        service=service.name,
                        name=method.name,
                        comment=comments[_SERVICE, at, _METHOD, number],
                        request=method.input_type.removeprefix("."),
                        response=method.output_type.removeprefix("."),
                        streams=method.server_streaming,
                        bindings=(rule, *rule.additional_bindings),
                    )
                )


def read() -> Contracts:
    """The contracts in gen/."""
    return Contracts((ROOT / "gen" / "khesht.binpb").read_bytes())


def verb_and_path(binding: http_pb2.HttpRule) -> tuple[str, str]:
    """The verb in lower case, and the path with bare names of its variables."""
    verb = binding.WhichOneof("pattern")
    return verb, re.sub(r"\{(\w+)=\*\*\}", r"{\1}", getattr(binding, verb))


def _messages(
    name: str, message: DescriptorProto, at: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[Message]:
    yield Message(
        name=name,
        comment=comments.get(at, ""),
        fields=tuple(
            Field(field, comments.get((*at, _FIELD, number), ""))
            for number, field in enumerate(message.field)
        ),
        is_map=message.options.map_entry,
        choices=tuple(
            tuple(each.fields)
            for each in message.options.Extensions[validate_pb2.message].oneof
            if each.required
        ),
    )
    for nested in message.nested_type:  # Only entries of maps: they have no comments.
        yield from _messages(f"{name}.{nested.name}", nested, (), {})


def _reason(comment: str) -> Reason:
    found = _EXAMPLE.search(comment)
    if found is None:
        raise ValueError(f"a reason without an example: {comment}")
    example = json.loads(found[1])
    return Reason(example["code"], example["message"], comment[: found.start()])


def _unwrap(comment: str) -> str:
    """The text of a comment, each paragraph in one line."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(line.strip() for line in p.splitlines()) for p in paragraphs)
