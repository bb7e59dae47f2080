"""MaskGIT's VQGAN of 1d-tokenizer equals the original, whose shortcuts take what the second convolution gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.vqgan.config import MASKGIT as NETWORK
from models.vqgan.config import LevelShape
from models.vqgan.convolutions import Block, ConvolutionalVQ
from models.vqgan.geometry import geometry
from models.weights.checks import without_weights
from tests.support.families import MASKGIT, check_golden, golden
from tests.support.paths import GOLDEN

BIN = "maskgit-vqgan-small.bin"
SMALL = TokenizerOptions(image_size=40)


def weights() -> dict[str, Tensor]:
    return torch.load(MASKGIT / BIN, weights_only=True)


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str) -> None:
    check_golden(open_tokenizer(MASKGIT, SMALL).network().requires_grad_(False), MASKGIT, shape)


def test_a_shortcut_of_the_input_would_give_other_latents() -> None:
    network = open_tokenizer(MASKGIT, SMALL).network().requires_grad_(False)
    wide = [module for module in network.modules() if isinstance(module, Block) and module.has_shortcut]
    assert len(wide) == 4
    for block in wide:
        width = block.conv1.in_channels
        block.shortcut_of_input, block.nin_shortcut.weight = (
            True,
            torch.nn.Parameter(block.conv1.weight[:, :width, 1:2, 1:2]),
        )
    found = network.image_latents(torch.from_numpy(golden(MASKGIT, "inputs"))).numpy()
    assert np.abs(found - golden(MASKGIT, "expected_latents")).mean() > 0.1


@pytest.mark.parametrize("form", ["folder", "file", "pytorch_model.bin", "model.safetensors", "prefixed"])
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if form in ("folder", "file"):
        shutil.copy(MASKGIT / BIN, folder)
    elif form == "pytorch_model.bin":
        torch.save(weights(), folder / form)
    else:
        prefix = "vqgan." if form == "prefixed" else ""
        save_file({f"{prefix}{name}": value for name, value in weights().items()}, folder / "model.safetensors")
    opened = open_tokenizer(folder / BIN if form == "file" else folder, SMALL)
    assert (opened.format, opened.spec.preprocessing, opened.spec.pixel_range) == ("maskgit", "llamagen", (0.0, 1.0))
    assert opened.spec.name == ("maskgit-vqgan-small" if form in ("folder", "file") else "mine")
    assert opened.weights_id() == open_tokenizer(MASKGIT, SMALL).weights_id()
    assert (opened.spec.grid, opened.spec.codebook_size, opened.spec.nearest) == (10, 170, True)


def test_converted_it_gives_the_same_codes(tmp_path: Path) -> None:
    opened = open_tokenizer(MASKGIT, SMALL)
    converted = opened.convert(tmp_path / "own")
    assert (converted.codebook_id(), converted.weights_id()) == (opened.codebook_id(), opened.weights_id())
    running = converted.load(device="cpu", dtype="float32", batch_size=4, threads=1)
    codes = golden(MASKGIT, "png_codes")
    found = np.concatenate(
        [running.encode(part) for part in (golden(MASKGIT, "png_pixels")[i : i + 4] for i in (0, 4))]
    )
    np.testing.assert_array_equal(found, codes.reshape(len(codes), -1))
    with pytest.raises(ConfigError, match="backend vqgan-jax: has no network for"):
        converted.load(backend="vqgan-jax")


def test_what_its_file_does_not_say_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"does not say how large its images are: give image_size \(256 is in use"):
        open_tokenizer(MASKGIT)
    with pytest.raises(ConfigError, match="one set of weights"):
        open_tokenizer(MASKGIT, TokenizerOptions(image_size=40, weights="ema"))


def test_of_several_files_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        shutil.copy(MASKGIT / BIN, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds several tokenizers of MaskGIT \(a\.bin, b\.bin\); name the file"):
        open_tokenizer(tmp_path, SMALL)
    assert open_tokenizer(tmp_path / "b.bin", SMALL).spec.name == "b"


def test_titok_is_named_though_it_ends_in_the_same_decoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": {"vq_model": {"num_latent_tokens": 32}}}))
    decoder = {f"pixel_{name}": value for name, value in weights().items() if name.startswith("decoder.")}
    save_file({"latent_tokens": torch.ones(32, 4), **decoder}, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"this is a TiTok of 1d-tokenizer \(its codes are no grid\), which vqbeam"
    ):
        open_tokenizer(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder.conv_in.weight", (), "these are not the weights of a VQGAN"),
        ("quantize.embedding.weight", (170, 8), r"misshapen: .*encoder\.conv_out\.weight is \[16, 32, 1, 1\], not \[8"),
        ("decoder.conv_in.weight", (32, 9, 3, 3), r"misshapen: decoder\.conv_in\.weight is \[32, 9, 3, 3\]"),
    ],
)
def test_weights_of_another_geometry_are_named(name: str, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    torch.save(weights() | {name: torch.zeros(shape)}, tmp_path / BIN)
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(tmp_path, SMALL).weights_id()


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_maskgit_vq_f16_1024.json").read_text())
    shapes = {name.replace(".upsample_conv.", ".upsample."): tuple(shape) for name, shape in stored.items()}
    config = geometry(shapes, 256, Path("maskgit"), network=NETWORK)
    assert config.levels_down == tuple(LevelShape(width, 2, False) for width in (128, 128, 256, 256, 512))
    assert (config.n_embed, config.embed_dim, config.factor) == (1024, 256, 16)
    built = without_weights(lambda: ConvolutionalVQ(config)).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == shapes
