"""What pytest loads before any test: the shared fixtures, and a first line that names the processor's units.

Each fixture imports what it needs, so that a test pays only for its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.support.machine import units

# Set before any test imports gcsfs, which would otherwise ask the real service.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VQGAN of random weights: 16x16 pixels, 8x8 codes of 32."""
    from models.vqgan.checkpoint import save_vqgan
    from tests.support.vqgan_checkpoints import random_vqgan

    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_vqgan(random_vqgan(), folder, name="tiny")
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP of random weights: 16x16 pixels, captions of 8 pieces."""
    from tests.support.tiny_clip import write_tiny_clip

    folder = tmp_path_factory.mktemp("models") / "clip"
    write_tiny_clip(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of random weights: `dalle_bart/`, `vqgan/` of 4x4 codes at 32 pixels, `clip/`."""
    from tests.support.tiny_generator import write_tiny_generator

    return write_tiny_generator(tmp_path_factory.mktemp("models") / "generator")


@pytest.fixture(scope="module")
def gcs_bucket() -> Iterator[str]:
    """`gs://bucket`, an empty bucket of an emulated store, for this process and those that it starts."""
    from tests.support.gcs_bucket import emulated_bucket

    with emulated_bucket() as url:
        yield url


@pytest.fixture(scope="module")
def s3_bucket() -> Iterator[str]:
    """`s3://bucket`, an empty bucket of an emulated store, for this process and those that it starts."""
    from tests.support.s3_bucket import emulated_bucket

    with emulated_bucket() as url:
        yield url


@pytest.fixture(scope="module", params=["gs", "s3"])
def cloud_bucket(request: pytest.FixtureRequest) -> str:
    """`gs://bucket` and `s3://bucket`, each empty and emulated."""
    url: str = request.getfixturevalue({"gs": "gcs_bucket", "s3": "s3_bucket"}[request.param])
    return url


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Prints the line; pytest's own header is left out by `-q`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(units())
