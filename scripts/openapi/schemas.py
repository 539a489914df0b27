"""JSON schemas of messages, as the transcoder reads and prints them.

Read, a field may be left out unless its rules refuse zero. Printed, a field is
there unless it has presence and is unset.
"""

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from khesht.buf.validate import validate_pb2
from scripts.openapi.contracts import Contracts, Field, Message

Schema = dict[str, Any]

_SCALARS: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptorProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Names with commas between."},
    "google.protobuf.NullValue": {"type": "null"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}
# Rules of protovalidate and what they are in JSON schema; None for what it can't say.
_FORMATS = ("uuid", "email", "uri", "hostname", "ipv4", "ipv6")
_RULES: dict[str, str | None] = {
    "min_len": "minLength",
    "max_len": "maxLength",
    "pattern": "pattern",
    "in": "enum",
    "gte": "minimum",
    "lte": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique": "uniqueItems",
    "gt_now": None,
    "lt_now": None,
    "not_in": None,
    "finite": None,
}

# Fields that go with one of those that a body chooses from: what services refuse, and rules can't say.
GOES_WITH = {"chat_id": "message"}


class Schemas:
    """Makes schemas of messages, and keeps them by name as `components`."""

    def __init__(self, contracts: Contracts) -> None:
        """Takes the contracts that hold the messages."""
        self._contracts = contracts
        self._made_of: dict[str, tuple[str, bool, frozenset[str]]] = {}
        self.components: dict[str, Schema] = {}

    def reference(self, name: str, *, read: bool, without: Iterable[str] = ()) -> Schema:
        """A reference to the schema of a message, to be read from a caller or printed to one.

        Fields in `without` are left out. Raises ValueError when the short name
        already stands for something else.
        """
        if name in _WELL_KNOWN:
            return _WELL_KNOWN[name]
        short = name.rsplit(".", 1)[1]
        made_of = (name, read, frozenset(without))
        if short not in self._made_of:
            self._made_of[short] = made_of
            self.components[short] = {}  # Its place, while it is made: a message may hold itself.
            message = self._contracts.messages[name]
            fields = [field for field in message.fields if field.name not in made_of[2]]
            if read and message.choices:
                self.components[short] = self._either(short, message, fields)
            else:
                self.components[short] = self._object(message.comment, fields, read)
        elif self._made_of[short] != made_of:
            raise ValueError(f"{short} would be both {self._made_of[short]} and {made_of}")
        return {"$ref": f"#/components/schemas/{short}"}

    def field(self, field: Field, *, read: bool) -> Schema:
        """The schema of a field, with what is said of it."""
        schema = self._bare(field, read) | _limits(field.rules if read else None, field)
        comment = field.comment.removeprefix("Required. ")
        return schema | ({"description": comment} if comment else {})

    def _either(self, short: str, message: Message, fields: list[Field]) -> Schema:
        """The schema of a message of which exactly one of some fields must be set: a named form for each.

        Generators make a type of each form, and of a bare `required` beside fields none.
        """
        if len(message.choices) != 1:
            raise ValueError(f"{short}: forms for more than one choice have no names")
        (names,) = message.choices
        forms = []
        for chosen in names:
            form = f"{short.removesuffix('Request')}With{chosen.title().replace('_', '')}"
            others = [name for name in names if name != chosen]
            others += [name for name, with_ in GOES_WITH.items() if with_ in others]
            left = [field for field in fields if field.name not in others]
            without = " and ".join(f"`{name}`" for name in others)
            made = self._object(
                f"{short} with `{chosen}`, and so without {without}.", left, read=True
            )
            made["properties"][chosen] = _not_empty(self.field(_named(fields, chosen), read=True))
            made["required"] = [chosen, *(each for each in made.get("required", ()))]
            self.components[form] = made
            forms.append({"$ref": f"#/components/schemas/{form}"})
        return {"description": message.comment, "anyOf": forms}

    def _object(self, text: str, fields: list[Field], read: bool) -> Schema:
        schema: Schema = {
            "type": "object",
            "description": text,
            "properties": {field.name: self.field(field, read=read) for field in fields},
        }
        always = [
            field.name for field in fields if (_is_needed(field) if read else _is_printed(field))
        ]
        if read:
            properties = schema["properties"]
            schema["properties"] = {
                name: each if name in always else _or_null(each)
                for name, each in properties.items()
            }
        if always:
            schema["required"] = always
        if read:
            schema["additionalProperties"] = False  # Unknown names are refused.
        return schema

    def _bare(self, field: Field, read: bool) -> Schema:
        if not field.repeated:
            return self._one(field, read)
        entry = self._contracts.messages.get(field.type_name)
        if entry is not None and entry.is_map:
            return {"type": "object", "additionalProperties": self._one(entry.fields[1], read)}
        return {"type": "array", "items": self._one(field, read)}

    def _one(self, field: Field, read: bool) -> Schema:
        if field.descriptor.type in _SCALARS:
            return dict(_SCALARS[field.descriptor.type])
        if field.type_name in self._contracts.enums:
            return {"type": "string", "enum": self._contracts.enums[field.type_name]}
        return dict(self.reference(field.type_name, read=read))


def _named(fields: list[Field], name: str) -> Field:
    return next(field for field in fields if field.name == name)


def _not_empty(schema: Schema) -> Schema:
    """The schema of a field that counts as set: an empty one is as good as none."""
    return schema | ({"minItems": 1} if schema["type"] == "array" else {"minLength": 1})


def _or_null(schema: Schema) -> Schema:
    """The schema of a field that may be left out: null leaves it out too (ProtoJSON)."""
    if (
        "$ref" in schema or "enum" in schema
    ):  # Of a list with null among it, generators make no type.
        text = {key: value for key, value in schema.items() if key == "description"}
        of = {key: value for key, value in schema.items() if key not in text}
        return {"anyOf": [of, {"type": "null"}], **text}
    if schema.get("type", "null") == "null":
        return schema
    return schema | {"type": [schema["type"], "null"]}


def _is_printed(field: Field) -> bool:
    return not field.has_presence


def _is_needed(field: Field) -> bool:
    rules = field.rules
    if rules.required:
        return True
    if field.has_presence or rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return False
    if field.repeated:
        return bool(rules.repeated.min_items)
    if field.descriptor.type == FieldDescriptorProto.TYPE_STRING:
        text = rules.string
        listed = bool(getattr(text, "in")) and "" not in getattr(text, "in")
        named = any(getattr(text, name) for name in _FORMATS)
        refused = bool(text.pattern) and not re.search(text.pattern, "")
        return bool(text.min_len) or listed or named or refused
    limits = _limits(rules, field)
    return bool(limits.get("minimum", 0) > 0 or limits.get("exclusiveMinimum", -1) >= 0)


def _limits(rules: validate_pb2.FieldRules | None, field: Field) -> Schema:
    """What `rules` say in words of JSON schema. Raises ValueError for a rule that is not known."""
    kind = rules.WhichOneof("type") if rules is not None else None
    if rules is None or kind in (None, "field_mask"):
        return {}
    schema: Schema = {}
    for rule, value in getattr(rules, kind).ListFields():
        if rule.name == "items":
            schema["items"] = _SCALARS[field.descriptor.type] | _limits(value, field)
        elif rule.name in _FORMATS:
            schema["format"] = rule.name
        elif rule.name not in _RULES:
            raise ValueError(f"{field.name}: a rule without words in JSON schema: {rule.name}")
        elif name := _RULES[rule.name]:
            schema[name] = list(value) if rule.name == "in" else value
    return schema
