"""The limit of open descriptors."""

import subprocess
import sys

import pytest

CODE = "from mesh import descriptors as d; import resource as r; print(d.raise_limit(), *r.getrlimit(r.RLIMIT_NOFILE))"


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [(256, 1024, 1024), (1024, 1024, 1024), (300, 70_000, 65_536), (70_000, 70_000, 70_000)],
)
def test_the_soft_limit_is_raised_as_far_as_is_of_use(soft: int, hard: int, then: int):
    limits = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard})); {CODE}"
    done = subprocess.run([sys.executable, "-c", limits], capture_output=True, text=True)
    if "not allowed to raise" in done.stderr or "exceeds maximum" in done.stderr:
        pytest.skip(f"this machine allows fewer than {hard}")
    assert done.stdout.split() == [str(then), str(then), str(hard)], done.stderr
