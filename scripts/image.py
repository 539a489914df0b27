"""Does what the Dockerfile says in a folder, without an engine: a check of its steps, no way to ship.

`python -m scripts.image FOLDER` builds the image below FOLDER, with this Python in the place of the
base image's. Only what the Dockerfile uses is known; anything else is refused, by its line.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Where an absolute path begins in a command, a list of paths, or `NAME=/path`.
_ABSOLUTE = re.compile(r"(?<![\w.>/-])/(?=\w)")


class Refused(Exception):
    """The Dockerfile, or .dockerignore, says what is not known here. The text names the line."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its flags without dashes, and the rest of the line."""

    line: int
    name: str
    flags: Mapping[str, str]
    rest: str

    def refused(self, why: str) -> Refused:
        """The error of this line."""
        return Refused(f"line {self.line}: {self.name}: {why}")


@dataclass(slots=True)
class Image:
    """A built stage: the folder that is its file system, and what a container of it is told.

    Its settings speak of paths in the image; `here` says where those are.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()

    def here(self, text: str) -> str:
        """`text` with each absolute path as it is on this machine."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def path(self, path: str) -> Path:
        """Where `path` is on this machine, from the working directory."""
        return self.root / Path(self.folder, path).relative_to("/")

    def told(self) -> dict[str, str]:
        """The environment of a container that is told nothing else, on this machine.

        The base image's PATH is this machine's, with this Python in front.
        """
        own = {name: self.here(value) for name, value in self.environment.items()}
        python = str(Path(sys.base_prefix, "bin"))
        base = os.pathsep.join((python, os.environ.get("PATH", os.defpath)))
        return own | {"PATH": own.get("PATH", "$PATH").replace("$PATH", base)}


def steps(text: str) -> Iterator[Step]:
    """The instructions of a Dockerfile, comments left out and continued lines joined."""
    begun, pending = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun if pending else number
        pending += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        name, _, rest = pending.strip().partition(" ")
        flags = {}
        while found := re.match(r"--([\w-]+)=(\S+)\s+", rest):
            flags[found[1]] = found[2]
            rest = rest[found.end() :]
        yield Step(begun, name, flags, rest.strip())
        pending = ""


def build(target: Path, context: Path = ROOT) -> Image:
    """The last stage of the Dockerfile in `context`, built below the empty folder `target`.

    Raises Refused for what is not known, and CalledProcessError for a command that fails.
    """
    stages: dict[str, Image] = {}
    image: Image | None = None
    for step in steps((context / "Dockerfile").read_text()):
        if step.name == "FROM":
            base, _, name = step.rest.partition(" AS ")
            if step.flags or not base.startswith("python:3.11-slim"):
                raise step.refused("only python:3.11-slim is known")
            image = stages[name] = Image(target / f"stage-{len(stages)}")
            image.root.mkdir(parents=True)
        elif image is None:
            raise step.refused("before FROM")
        else:
            _do(step, image, context, stages)
    if image is None:
        raise Refused("no FROM")
    return image


def _do(step: Step, image: Image, context: Path, stages: Mapping[str, Image]) -> None:
    known = {"COPY": {"from", "chown"}, "HEALTHCHECK": {"interval", "timeout", "start-period"}}
    if unknown := set(step.flags) - known.get(step.name, set()):
        raise step.refused(f"--{min(unknown)} is not known")
    match step.name:
        case "WORKDIR":
            image.folder = step.rest
            image.path(".").mkdir(parents=True, exist_ok=True)
        case "COPY":
            _copy(step, image, context, stages)
        case "RUN":
            command = ["/bin/sh", "-c", image.here(step.rest)]
            subprocess.run(command, cwd=image.path("."), env=image.told(), check=True)
        case "ENV":
            image.environment |= dict(_assignment(step, each) for each in shlex.split(step.rest))
        case "USER":
            if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", step.rest):
                raise step.refused("wants the numbers of a user and a group that are not root")
            image.user = step.rest
        case "HEALTHCHECK":
            image.healthcheck = _exec_form(step, step.rest.removeprefix("CMD "))
        case "ENTRYPOINT":
            image.entrypoint = _exec_form(step, step.rest)
        case "CMD":
            image.command = _exec_form(step, step.rest)
        case _:
            raise step.refused("is not known")


def _assignment(step: Step, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise step.refused(f"{text} is no NAME=value")
    return name, value


def _exec_form(step: Step, text: str) -> tuple[str, ...]:
    """The words of `["program", "argument"]`: a shell between would keep signals to itself."""
    if not text.startswith("["):
        raise step.refused("wants a list of words")
    return tuple(json.loads(text))


def _copy(step: Step, image: Image, context: Path, stages: Mapping[str, Image]) -> None:
    *sources, last = step.rest.split()
    stage = step.flags.get("from")
    if len(sources) != 1 or (stage is not None and stage not in stages):
        raise step.refused("wants one source, of this folder or of a stage above")
    (source,) = sources
    origin = stages[stage].path(source) if stage else context / source
    if not stage and _ignored(context, source):
        raise step.refused(f"{source} is not in .dockerignore's list")
    target = image.path(last)
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        without = None if stage else shutil.ignore_patterns("__pycache__")
        shutil.copytree(origin, target, symlinks=True, dirs_exist_ok=True, ignore=without)
    else:
        shutil.copy(origin, target / origin.name if last.endswith("/") else target)
    if os.geteuid() == 0 and (owner := step.flags.get("chown")):
        user, group = map(int, owner.split(":"))
        for path in (target, *target.rglob("*")):
            os.chown(path, user, group, follow_symlinks=False)


def _ignored(context: Path, path: str) -> bool:
    """Whether .dockerignore keeps `path` from the image. Raises Refused for other than a list."""
    ignored = False
    for number, line in enumerate((context / ".dockerignore").read_text().splitlines(), 1):
        if not line or line.startswith("#") or line == "**/__pycache__":
            continue
        if not re.fullmatch(r"\*|![\w.-]+", line):
            raise Refused(f".dockerignore, line {number}: {line} is not known")
        if fnmatch(Path(path).parts[0], line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


if __name__ == "__main__":
    try:
        made = build(Path(sys.argv[1]).absolute())
    except (Refused, subprocess.CalledProcessError) as wrong:
        sys.exit(f"Dockerfile: {wrong}")
    print(f"built {made.root}: {' '.join((*made.entrypoint, *made.command))}")
