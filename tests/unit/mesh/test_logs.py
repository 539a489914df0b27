"""Log lines, as a process of its own prints them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, sys
import structlog
from mesh import logs
logs.setup("items", level=sys.argv[1], production=sys.argv[2] == "production")
log = structlog.get_logger("test")
log.debug("too much", secret=1)
log.info("rpc", code="OK", reason=None, ms=1.5, text="\\u00e9")
try:
    raise ValueError("what broke")
except ValueError as error:
    log.error("failed", exc_info=error)
logging.getLogger("library").info("not heard")
logging.getLogger("library").warning("heard")
"""


def lines(level: str, mode: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, mode],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_production_logs_are_json_with_the_services_name():
    info, failed = [json.loads(line) for line in lines("INFO", "production") if line[0] == "{"]
    assert (info["service"], info["level"], info["message"]) == ("items", "info", "rpc")
    assert (info["code"], info["ms"], info["text"]) == ("OK", 1.5, "é")
    assert info["timestamp"].endswith("Z")
    assert (failed["level"], failed["message"]) == ("error", "failed")
    assert "ValueError: what broke" in failed["exception"]
    assert "Traceback" in failed["exception"]


def test_other_logs_are_readable_and_keep_the_exception():
    printed = lines("INFO", "development")
    assert printed[0].endswith("info    rpc code=OK ms=1.5 text=é")
    assert "reason" not in printed[0]
    assert printed[1].rstrip().endswith("error   failed")
    assert "Traceback (most recent call last):" in printed
    assert "ValueError: what broke" in printed


@pytest.mark.parametrize(("level", "heard"), [("DEBUG", True), ("ERROR", False)])
def test_the_level_decides_what_is_heard(level: str, heard: bool):
    printed = "\n".join(lines(level, "production"))
    assert ("too much" in printed) is heard
    assert ('"rpc"' in printed) is heard
    assert "failed" in printed


def test_libraries_are_heard_from_warning_up():
    printed = "\n".join(lines("DEBUG", "production"))
    assert "WARNING library heard" in printed
    assert "not heard" not in printed
