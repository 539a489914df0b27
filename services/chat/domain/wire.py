"""OpenAI's wire format for what does not come from a provider that speaks it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from services.chat.domain.provider import Report

DONE = b"data: [DONE]\n\n"
# A comment, which readers skip; it keeps the connection from looking dead.
PING = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """Encodes one reply."""

    id: UUID
    model: str
    created_at: datetime

    def role(self) -> bytes:
        """The event that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def text(self, text: str) -> bytes:
        """The event of some text."""
        return self._chunk({"content": text}, None)

    def finish(self, report: Report) -> bytes:
        """The event that says why it ended."""
        return self._chunk({}, report.finish_reason)

    def usage(self, report: Report) -> bytes:
        """The event of what it used, for who asked for it."""
        return event({**self._common("chat.completion.chunk"), "choices": [], **_usage(report)})

    def whole(self, text: str, report: Report) -> bytes:
        """The body of an answer that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": report.finish_reason,
        }
        return msgspec.json.encode(
            {**self._common("chat.completion"), "choices": [choice], **_usage(report)}
        )

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._common("chat.completion.chunk"), "choices": [choice]})

    def _common(self, kind: str) -> dict[str, object]:
        created = int(self.created_at.timestamp())
        return {
            "id": f"chatcmpl-{self.id}",
            "object": kind,
            "created": created,
            "model": self.model,
        }


def event(body: dict[str, object]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _usage(report: Report) -> dict[str, object]:
    tokens = report.tokens
    read, written = (tokens.prompt, tokens.completion) if tokens else (0, 0)
    return {
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
    }
