"""Lines of an event stream (WHATWG HTML, 9.2.6), however its bytes are cut."""

_BOM = b"\xef\xbb\xbf"


class Lines:
    """Cuts bytes into lines, which end in LF, CRLF or CR."""

    def __init__(self, longest: int) -> None:
        """Takes lines of at most `longest` bytes."""
        self._longest = longest
        # What came of a line that has not ended. Joined once, or a line in small pieces is copied
        # for each of them.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._is_first = True
        self._after_cr = False
        # Whether the next byte begins a line, and not the first: then bytes without CR that end
        # in LF are cut by it alone, as long as they are no longer than a line may be.
        self.is_plain = False
        self.too_long = False

    @property
    def rest(self) -> bytes:
        """What came of a line that has not ended."""
        return b"".join(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`, up to one that is `too_long`, after which nothing is read."""
        lines = self._cut(data)
        self.is_plain = not (self._rest or self._after_cr or self._is_first or self.too_long)
        return lines

    def _cut(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and (self._rest or self._is_first):
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest, self._rest_bytes = [], 0
            if self._is_first:
                lines[0] = lines[0].removeprefix(_BOM)
                self._is_first = False
            if len(lines[0]) > self._longest:
                self.too_long = True
                return []
        if len(data) > self._longest:
            lines = self._up_to_longest(lines)
        if rest and not self.too_long:
            self._keep(rest)
        return lines

    def _keep(self, rest: bytes) -> None:
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        # A mark of byte order is not counted, and is not looked for before the line has ended.
        self.too_long = self._rest_bytes > self._longest + self._is_first * len(_BOM)

    def _up_to_longest(self, lines: list[bytes]) -> list[bytes]:
        for at, line in enumerate(lines):
            if len(line) > self._longest:
                self.too_long = True
                return lines[:at]
        return lines
