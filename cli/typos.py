"""Lines of `.env` that set nothing: most often ones that were mistyped."""

import contextlib
import difflib
import os
import re
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from cli import topology
from cli.settings import LocalSettings

_SAMPLE = topology.ROOT / ".env.example"
_SETTING = re.compile(r"(?m)^#?([A-Z_]+)=")
_KEY_ENV = re.compile(r"""(?m)^\s*key_env\s*=\s*["'](\w+)["']""")

_CLOSE, _NEARLY = 0.8, 0.9


def notes() -> list[str]:
    """A line for each, with the setting that may be meant."""
    known = _SETTING.findall(_SAMPLE.read_text(encoding="utf-8")) + _keys_of_own_providers()
    try:
        with Path(".env").open(encoding="utf-8") as file:
            found = [_note(binding, known) for binding in parse_stream(file)]
    except (FileNotFoundError, IsADirectoryError):
        return []
    return list(dict.fromkeys(filter(None, found)))


def _keys_of_own_providers() -> list[str]:
    settings, _ = LocalSettings.attempt(os.environ)
    # A file that can't be read is named by whoever needs it.
    with contextlib.suppress(OSError, ValueError):
        if path := settings.environment.get("MODELS_FILE"):
            return _KEY_ENV.findall(Path(path).read_text(encoding="utf-8"))
    return []


def _note(binding: Binding, known: list[str]) -> str:
    """What there is to say of a line, "" for nothing."""
    name, text = binding.key, binding.original.string
    if binding.error or (name and binding.value is None):
        # The blank lines before it are counted to it.
        number = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        return f"note: line {number} of .env is no setting"
    setting = (name or "").removesuffix("_FILE")
    if not name or name in known or setting in known:
        return ""
    # Providers may be called anything: only what is nearly one we know is mistyped.
    is_key = topology.is_provider_key(name)
    close = difflib.get_close_matches(
        setting.upper(), known, n=1, cutoff=_NEARLY if is_key else _CLOSE
    )
    if is_key and not close:
        return ""
    meant = f"; is {close[0]} meant?" if close else ""
    return f"note: {name} in .env is no setting of khesht{meant}"
