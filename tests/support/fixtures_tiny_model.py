"""The fixture `tiny_model`. A test module gets it with `pytest_plugins = ("tests.support.fixtures_tiny_model",)`."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.vqgan.checkpoint import save_vqgan
from tests.support.fixtures_checkpoints import random_vqgan


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VQGAN of random weights: 16x16 pixels, 8x8 codes of 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_vqgan(random_vqgan(), folder, name="tiny")
    return folder
