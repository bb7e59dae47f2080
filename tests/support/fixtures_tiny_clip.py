"""The fixture `tiny_clip`. A test module gets it with `pytest_plugins = ("tests.support.fixtures_tiny_clip",)`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_clip import write_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP of random weights: 16x16 pixels, captions of 8 pieces."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    folder.mkdir()
    write_tiny_clip(folder)
    return folder
