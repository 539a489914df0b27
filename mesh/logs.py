"""Structured logs: JSON in production, one readable line in development."""

import contextlib
import logging
import sys
from typing import BinaryIO, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger


def setup(service: str, *, level: str, production: bool) -> None:
    """Sends all logs of this process to standard output, each line with `service`.

    `level` is DEBUG, INFO, WARNING or ERROR. Call it once, before logging.
    """
    number = cast("int", getattr(logging, level))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _json(service) if production else _readable,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", _Output())),
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard module; what they say matters from WARNING up.
    logging.basicConfig(
        level=max(number, logging.WARNING),
        stream=sys.stdout,
        format="%(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("grpc._cython.cygrpc").addFilter(_harmless)


class _Output:
    """Standard output, of which a failure ends no call: its disk may be full."""

    def write(self, line: bytes) -> None:
        """Writes what can be written."""
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(line)

    def flush(self) -> None:
        """Passes on what can be passed on."""
        with contextlib.suppress(OSError):
            sys.stdout.buffer.flush()


def _harmless(record: logging.LogRecord) -> bool:
    """GRPC logs headers that are not UTF-8 whole, credentials too."""
    return not str(record.msg).startswith("Invalid encoding")


def _json(service: str) -> structlog.typing.Processor:
    def render(_: WrappedLogger, __: str, event: EventDict) -> bytes:
        event["service"] = service
        return orjson.dumps(event, default=str)

    return render


def _readable(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    level, message, exception = event.pop("level"), event.pop("message"), event.pop("exception", "")
    fields = " ".join(
        f"{key}={value}" for key, value in event.items() if key != "timestamp" and value is not None
    )
    line = f"{event['timestamp'][:23]} {level:7} {message} {fields}"
    return f"{line}\n{exception}".strip().encode()
