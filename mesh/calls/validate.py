"""Holds requests to the limits that their contract states (protovalidate)."""

from typing import Any

import protovalidate
from google.protobuf.message import Message

from mesh import errors


class Validator:
    """Checks requests; the rules of a message are compiled when it is first met."""

    def __init__(self) -> None:
        """Makes the rule engine."""
        self._engine = protovalidate.Validator()

    def check(self, request: Message) -> None:
        """Raises InvalidRequest that names every field that breaks a rule."""
        try:
            self._engine.validate(request)
        except protovalidate.ValidationError as wrong:
            raise errors.InvalidRequest(
                *[_violation(each.proto) for each in wrong.violations]
            ) from None


def _violation(proto: Any) -> errors.Violation:  # noqa: ANN401 - its package is private
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return errors.Violation(path, proto.message)
