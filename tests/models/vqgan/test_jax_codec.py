"""The adapter on the vqgan-jax package; without it, only the error that says so."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ConfigError
from models.find import EMBEDDED
from models.image_tokenizer import ImageTokenizer
from models.vqgan.checkpoint import convert, open_checkpoint, save_vqgan
from tests.support.vqgan_checkpoints import (
    GOLDEN_VQGAN,
    TINY,
    TINY_GUMBEL,
    golden,
    min_dalle_weights,
    random_vqgan,
    write_vqgan_jax,
)

INSTALLED = importlib.util.find_spec("vqgan_jax") is not None
needs_package = pytest.mark.skipif(not INSTALLED, reason="the vqgan-jax package is not installed (it is not on PyPI)")


def random_images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def both(folder: Path, **settings: object) -> tuple[ImageTokenizer, ImageTokenizer]:
    return open_checkpoint(folder).load(backend="vqgan-jax", **settings), open_checkpoint(folder).load(
        device="cpu", **settings
    )


@pytest.mark.skipif(INSTALLED, reason="the vqgan-jax package is installed")
def test_a_missing_package_is_reported_with_the_line_that_installs_it() -> None:
    line = r'pip install "vqbeam\[jax\]" git\+https://github\.com/patil-suraj/vqgan-jax'
    with pytest.raises(ConfigError, match=line):
        open_checkpoint(GOLDEN_VQGAN).load(backend="vqgan-jax")


@needs_package
def test_codes_and_images_of_golden_weights_equal_those_of_torch() -> None:
    theirs, ours = both(GOLDEN_VQGAN, batch_size=4)
    images = (golden("inputs") * 255).round().astype(np.uint8)
    codes = theirs.encode(images)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, ours.encode(images))
    difference = theirs.decode(codes[:3]).astype(int) - ours.decode(codes[:3])
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3


@needs_package
def test_provenance_is_that_of_torch() -> None:
    theirs, ours = both(GOLDEN_VQGAN)
    assert theirs.spec.name == ours.spec.name


@needs_package
def test_a_checkpoint_of_another_format_gives_the_same_codes(tmp_path: Path) -> None:
    convert(GOLDEN_VQGAN, tmp_path / "own")
    images = random_images(2, 64)
    own = open_checkpoint(tmp_path / "own").load(backend="vqgan-jax", batch_size=2)
    flax = open_checkpoint(GOLDEN_VQGAN).load(backend="vqgan-jax", batch_size=2)
    np.testing.assert_array_equal(own.encode(images), flax.encode(images))


@needs_package
@pytest.mark.skipif(not (EMBEDDED["emoji"] / "config.json").is_file(), reason="the embedded model is not built")
def test_codes_of_the_embedded_model_equal_those_of_torch() -> None:
    theirs, ours = both(EMBEDDED["emoji"], batch_size=8)
    images = random_images(8, theirs.spec.resolution)
    np.testing.assert_array_equal(theirs.encode(images), ours.encode(images))
    codes = np.random.default_rng(0).integers(0, theirs.spec.codebook_size, (8, theirs.spec.codes_per_image))
    assert np.abs(theirs.decode(codes).astype(int) - ours.decode(codes)).max() <= 1


@needs_package
def test_the_quantiser_stays_float32_in_bfloat16() -> None:
    theirs, ours = both(GOLDEN_VQGAN, batch_size=4, dtype="bfloat16")
    images = (golden("inputs") * 255).round().astype(np.uint8)
    assert (theirs.encode(images) == ours.encode(images)).mean() > 0.8


@needs_package
def test_neighbours_in_a_batch_change_nothing() -> None:
    theirs = open_checkpoint(GOLDEN_VQGAN).load(backend="vqgan-jax", batch_size=3)
    images = random_images(3, 64)
    np.testing.assert_array_equal(theirs.encode(images[1:2])[0], theirs.encode(images)[1])


@needs_package
def test_a_decoder_alone_decodes_and_says_that_it_cannot_encode(tmp_path: Path) -> None:
    torch.save(min_dalle_weights(dict(random_vqgan().state_dict())), tmp_path / "detoker.pt")
    theirs, ours = both(tmp_path, batch_size=2)
    codes = np.random.default_rng(0).integers(0, 32, (2, ours.spec.codes_per_image))
    assert np.abs(theirs.decode(codes).astype(int) - ours.decode(codes)).max() <= 1
    with pytest.raises(ConfigError, match="decoder only"):
        theirs.encode(random_images(1, 16))


@needs_package
def test_a_gumbel_quantiser_is_refused(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(TINY_GUMBEL), tmp_path, name="gumbel")
    with pytest.raises(ConfigError, match="gumbel"):
        open_checkpoint(tmp_path).load(backend="vqgan-jax")


@needs_package
@pytest.mark.parametrize(("device", "dtype"), [("abacus", "auto"), ("cpu", "float8")])
def test_unknown_settings_are_refused(tmp_path: Path, device: str, dtype: str) -> None:
    write_vqgan_jax(tmp_path, dict(random_vqgan().state_dict()), TINY)
    with pytest.raises(ConfigError, match=device if device == "abacus" else dtype):
        open_checkpoint(tmp_path).load(backend="vqgan-jax", device=device, dtype=dtype)


@needs_package
def test_a_batch_is_spread_over_all_devices(tmp_path: Path) -> None:
    write_vqgan_jax(tmp_path, dict(random_vqgan().state_dict()), TINY)
    images = random_images(4, 16)
    np.save(tmp_path / "images.npy", images)
    script = """
import sys, jax, numpy as np
from models.vqgan.checkpoint import open_checkpoint
codec = open_checkpoint(sys.argv[1]).load(backend="vqgan-jax", batch_size=5)
assert len(jax.local_devices()) == 2 and codec.batch_size == 6
np.save(sys.argv[1] + "/codes.npy", codec.encode(np.load(sys.argv[1] + "/images.npy")))
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    ours = open_checkpoint(tmp_path).load(device="cpu", batch_size=4)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), ours.encode(images))
