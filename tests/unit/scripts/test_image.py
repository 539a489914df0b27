"""How the Dockerfile is read: what is known, and that the rest is refused."""

from pathlib import Path

import pytest

from scripts import image
from scripts.image import Refused

BASE = "FROM python:3.11-slim-bookworm\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / ".dockerignore").write_text("*\n!given\n")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("content")
    (tmp_path / ".env").write_text("SECRET_KEY=…")
    return tmp_path


def built(context: Path, dockerfile: str) -> image.Image:
    (context / "Dockerfile").write_text(dockerfile)
    return image.build(context / "images", context)


def test_stages_hand_files_on_and_commands_see_the_paths_of_the_image(context: Path):
    made = built(
        context,
        "FROM python:3.11-slim AS build\n"
        "WORKDIR /work\n"
        "COPY given ./copied\n"
        "RUN mkdir -p /out \\\n"
        "    # a comment between\n"
        "    && cp copied/file /out/file\n"
        "FROM python:3.11-slim\n"
        "COPY --from=build /out /final\n"
        "ENV PATH=/final/bin:$PATH AT=/final\n"
        'CMD ["a", "b"]\n',
    )
    assert (made.root / "final" / "file").read_text() == "content"
    assert not (made.root / "work").exists()
    assert made.told()["AT"] == f"{made.root}/final"
    assert made.told()["PATH"].startswith(f"{made.root}/final/bin:")
    assert made.command == ("a", "b")
    assert not Path("/out").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ADD given /x", "line 2: ADD: is not known"),
        ("COPY --link given /x", "line 2: COPY"),
        ("COPY --chmod=777 given /x", "--chmod is not known"),
        ("COPY .env /x", ".env is not in .dockerignore's list"),
        ("COPY --from=other /x /x", "of a stage above"),
        ("USER khesht", "the numbers of a user and a group"),
        ("USER 0:0", "the numbers of a user and a group"),
        ("CMD python -m cli.main", "wants a list of words"),
        ("ENV A b", "A is no NAME=value"),
        ("FROM ubuntu", "only python:3.11-slim is known"),
    ],
)
def test_what_is_not_known_is_refused_by_its_line(context: Path, line: str, why: str):
    with pytest.raises(Refused) as refused:
        built(context, BASE + line)
    assert why in str(refused.value)


def test_a_pattern_that_is_not_known_is_refused(context: Path):
    (context / ".dockerignore").write_text("*\n!given/*.txt\n")
    with pytest.raises(Refused, match="line 2"):
        built(context, BASE + "COPY given /x")


def test_a_command_that_fails_ends_the_build(context: Path):
    with pytest.raises(Exception, match="exit status 3"):
        built(context, BASE + "RUN exit 3")
