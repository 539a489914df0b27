"""Names in `.env` that are no settings: most often ones that were mistyped."""

import difflib
import re

from dotenv import dotenv_values

from cli import topology

_SAMPLE = topology.ROOT / ".env.example"
_SETTING = re.compile(r"(?m)^#?([A-Z_]+)=")


def notes() -> list[str]:
    """A line for each, with the setting that may be meant."""
    known = _SETTING.findall(_SAMPLE.read_text(encoding="utf-8"))
    return [
        f"note: {name} in .env is no setting of khesht{_meant(name, known)}"
        for name in dotenv_values(".env")
        if name not in known and not topology.is_provider_key(name)
    ]


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    return f"; is {close[0]} meant?" if close else ""
