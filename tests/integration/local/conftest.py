"""A home for each test."""

from pathlib import Path

import pytest

from mesh.local.home import Home, open_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")
