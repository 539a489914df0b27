"""Takes the key of a call out of what its provider answers: some repeat what they were sent."""

_HIDDEN = "…".encode()
# Servers that want none are often given a word for a key, which may stand in any text.
_SHORTEST_KEY_CHARACTERS = 16


class Redactor:
    """Of one answer, whose bytes may be cut anywhere, also within the key."""

    def __init__(self, key: str | None) -> None:
        """Hides `key`, unless it is too short to be one."""
        self._key = (key or "").encode()
        self._is_on = len(self._key) >= _SHORTEST_KEY_CHARACTERS
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """`data` without the key; what may be its beginning is held back."""
        if not self._is_on:
            return data
        if self._held:
            data, self._held = self._held + data, b""
        if self._key in data:
            data = data.replace(self._key, _HIDDEN)
        if not data.endswith(b"\n"):  # Mostly an event ends here.
            data, self._held = self._parted(data)
        return data

    def end(self) -> bytes:
        """What was held back."""
        return self._held

    def _parted(self, data: bytes) -> tuple[bytes, bytes]:
        for size in range(min(len(self._key) - 1, len(data)), 0, -1):
            if data.endswith(self._key[:size]):
                return data[:-size], data[-size:]
        return data, b""
