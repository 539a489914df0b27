"""How far the start of a mesh is: a list of its processes that changes on a terminal, else lines."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_REFRESH_HZ = 5


class Progress:
    """The processes `names` in the order of their start, while the block lasts.

    Call it with a name and False when that begins to start, with True when it is ready. Where
    `stream` is no terminal, `report` gets a line for each that is ready.
    """

    def __init__(
        self, names: Sequence[str], report: Callable[[str], None], stream: TextIO = sys.stdout
    ) -> None:
        self._names = names
        self._report = report
        self._stream = stream
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Shows the list, if there is a terminal to show it on."""
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._stream),
                get_renderable=self._table,
                refresh_per_second=_REFRESH_HZ,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the list as it is in the end."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, name: str, ready: bool) -> None:
        """Takes that a process begins to start, or is ready."""
        now = time.monotonic()
        if not ready:
            self._began.setdefault(name, now)
        elif name not in self._took:
            self._took[name] = now - self._began.get(name, now)
            if self._live is None:
                self._report(f"{name:10} {self.state(name)}")

    def state(self, name: str) -> str:
        """What is to be said of a process."""
        if name in self._took:
            return f"ready in {self._took[name]:.1f} s"
        if name in self._began:
            return f"starting, {time.monotonic() - self._began[name]:.0f} s"
        return "waiting"

    def _table(self) -> "RenderableType":
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name in self._names:
            table.add_row(f"  {name}", self.state(name))
        return table
