"""The image, built once by the Dockerfile's own steps."""

from pathlib import Path

import pytest

from scripts import image
from scripts.image import Image


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder: Path = tmp_path_factory.mktemp("image")
    return image.build(folder)
