"""What is shown of a mesh that starts."""

import io

from cli.progress import Progress

NAMES = ["postgres", "auth"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_is_a_line_for_each_that_is_ready():
    lines: list[str] = []
    with Progress(NAMES, lines.append, io.StringIO()) as progress:
        progress("postgres", False)
        assert lines == []
        progress("postgres", True)
        progress("postgres", True)
    assert lines == ["postgres   ready in 0.0 s"]


def test_on_a_terminal_there_is_a_list_of_all_and_no_lines():
    lines: list[str] = []
    terminal = Terminal()
    with Progress(NAMES, lines.append, terminal) as progress:
        progress("postgres", False)
        assert progress.state("auth") == "waiting"
        assert progress.state("postgres").startswith("starting, ")
        progress("postgres", True)
    assert lines == []
    shown = terminal.getvalue()
    assert "waiting" in shown
    last = shown.rpartition("postgres")[2]
    assert last.startswith("  ready in 0.0 s")


def test_what_fails_to_start_is_left_in_sight():
    terminal = Terminal()
    try:
        with Progress(NAMES, lambda _: None, terminal) as progress:
            progress("postgres", False)
            raise OSError("it does not start")
    except OSError:
        last = terminal.getvalue().rpartition("postgres")[2]
        assert last.startswith("  starting, ")
