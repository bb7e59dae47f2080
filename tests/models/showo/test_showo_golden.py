"""Show-o's MAGVITv2 equals the original; its codes are signs, the first channel the highest bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.showo import names
from models.showo.checkpoint import WEIGHTS
from models.vqgan.config import LevelShape
from models.vqgan.geometry import geometry
from models.vqgan.network import VQGAN
from models.weights.checks import without_weights
from tests.support.families import SHOWO, check_golden, golden
from tests.support.paths import GOLDEN

SMALL = TokenizerOptions(image_size=40)


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str) -> None:
    check_golden(open_tokenizer(SHOWO, SMALL).network().requires_grad_(False), SHOWO, shape)


@pytest.mark.parametrize("form", ["folder", "file", "pickled"])
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(SHOWO / "config.json", folder)
    if form == "pickled":
        torch.save(load_file(SHOWO / WEIGHTS), folder / "pytorch_model.bin")
    else:
        shutil.copy(SHOWO / WEIGHTS, folder)
    opened = open_tokenizer(folder / WEIGHTS if form == "file" else folder, SMALL)
    assert (opened.format, opened.spec.name, opened.spec.preprocessing) == ("showo", "mine", "showo")
    assert opened.weights_id() == open_tokenizer(SHOWO, SMALL).weights_id()
    assert (opened.spec.grid, opened.spec.codebook_size, opened.spec.pixel_range) == (10, 256, (-1.0, 1.0))


def test_converted_it_gives_the_same_codes(tmp_path: Path) -> None:
    opened = open_tokenizer(SHOWO, SMALL)
    converted = opened.convert(tmp_path / "own")
    assert converted.codebook_id() == opened.codebook_id()
    running = converted.load(device="cpu", dtype="float32", batch_size=4, threads=1)
    codes = golden(SHOWO, "png_codes")
    np.testing.assert_array_equal(running.encode(golden(SHOWO, "png_pixels")), codes.reshape(len(codes), -1))


def test_what_its_files_do_not_say_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"does not say how large its images are: give image_size \(256 and 512"):
        open_tokenizer(SHOWO)
    with pytest.raises(ConfigError, match="one set of weights"):
        open_tokenizer(SHOWO, TokenizerOptions(image_size=40, weights="ema"))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder.quant_conv.weight", (30, 30, 1, 1), "codes of 30 bits; expected 1 to 24"),
        ("encoder.conv_in.weight", (), "these are not the weights of a VQGAN"),
        ("decoder.conv_in.weight", (32, 9, 3, 3), r"misshapen: decoder\.conv_in\.weight is \[32, 9, 3, 3\]"),
    ],
)
def test_weights_of_another_geometry_are_named(name: str, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    save_file(load_file(SHOWO / WEIGHTS) | {name: torch.zeros(shape)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(tmp_path, SMALL).weights_id()


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_showo_magvitv2.json").read_text())
    shapes = {names.ours(key): tuple(shape) for key, shape in stored.items() if not key.startswith(names.TABLES)}
    config = geometry(shapes, 256, Path("magvitv2"), quantizer="signs, highest first", n_embed=8192, embed_dim=13)
    blocks, widths = (4, 3, 4, 3, 4), (128, 256, 256, 512, 512)
    assert config.levels_down == tuple(LevelShape(*level, False) for level in zip(widths, blocks, strict=True))
    blocks, widths = (4, 4, 3, 4, 3), (128, 128, 256, 256, 512)
    assert config.levels_up == tuple(LevelShape(*level, False) for level in zip(widths, blocks, strict=True))
    built = without_weights(lambda: VQGAN(config)).state_dict()
    assert {key: tuple(value.shape) for key, value in built.items()} == shapes
