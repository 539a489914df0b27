"""What code of the mesh raises when a call can't be answered; knows no gRPC.

Each class stands for one canonical status (AIP-193) and carries the reason that
callers switch on, a text fit for anyone, and what varies in it as metadata:

    MeshError
    ├── InvalidRequest        400  names the fields that are wrong
    ├── FailedPrecondition    400
    ├── Unauthenticated       401
    ├── PermissionDenied      403
    ├── NotFound              404
    ├── AlreadyExists         409
    ├── Aborted               409
    ├── ResourceExhausted     429  says when to come again
    ├── Unavailable           503  says when to come again, where known
    │   └── Degraded          503  has a body of its own over HTTP
    └── DeadlineExceeded      504

Anything else that is raised is INTERNAL: logged whole, sent without its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


class MeshError(Exception):
    """A refusal or failure that the caller may be told of as it is."""

    status: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keeps `reason` (UPPER_SNAKE), `message` and seconds to wait, if any."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request, by its dotted path, and what is wrong with it."""

    field: str
    description: str


# They travel in headers, of which clients of gRPC take 8 KiB.
_MOST_VIOLATIONS = 10


class InvalidRequest(MeshError):
    """The request can't be right whatever the state: some field is wrong."""

    status = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation, reason: str = "INVALID_FIELDS") -> None:
        """Takes at least one violation, and tells of the first ten."""
        self.violations = violations[:_MOST_VIOLATIONS]
        text = "; ".join(
            f"{wrong.field}: {wrong.description}" if wrong.field else wrong.description
            for wrong in self.violations
        )
        super().__init__(reason, text)


def invalid(field: str, description: str, *, reason: str = "INVALID_FIELDS") -> InvalidRequest:
    """The error of one wrong field."""
    return InvalidRequest(Violation(field, description), reason=reason)


class FailedPrecondition(MeshError):
    """The request is right, but not for the state things are in."""

    status = "FAILED_PRECONDITION"


class Unauthenticated(MeshError):
    """The caller did not show who they are."""

    status = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """The caller is known and may not do this."""

    status = "PERMISSION_DENIED"


class NotFound(MeshError):
    """The caller has nothing of this name."""

    status = "NOT_FOUND"


class AlreadyExists(MeshError):
    """Something of this name is there already."""

    status = "ALREADY_EXISTS"


class Aborted(MeshError):
    """Somebody else ended what the caller waited for."""

    status = "ABORTED"


class ResourceExhausted(MeshError):
    """A limit is spent."""

    status = "RESOURCE_EXHAUSTED"


class Unavailable(MeshError):
    """Something needed does not answer now; the same call may work later."""

    status = "UNAVAILABLE"


class Degraded(Unavailable):
    """The call was answered, but what it asked about is not well.

    HTTP callers are given `body` as it is, in place of the error's envelope.
    """

    def __init__(
        self, reason: str, message: str, *, metadata: Mapping[str, str], body: Mapping[str, object]
    ) -> None:
        """Takes a JSON object as `body`; `metadata` tells callers over gRPC the same."""
        super().__init__(reason, message, metadata=metadata)
        self.body = body


class DeadlineExceeded(MeshError):
    """The time for the call ran out."""

    status = "DEADLINE_EXCEEDED"


def no_time() -> DeadlineExceeded:
    """The error of a call whose time ran out."""
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the time for this call ran out")
