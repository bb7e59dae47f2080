"""Emu3's tokenizer equals the original for still images, in its own form and in transformers'."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.emu3 import names
from models.emu3.checkpoint import _config
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.vqgan import emu3_network
from models.weights.checks import without_weights
from tests.support.families import EMU3, REST, check_golden, golden
from tests.support.paths import GOLDEN

SMALL = TokenizerOptions(image_size=32)


def renamed() -> dict[str, Tensor]:
    """The weights under transformers' names."""
    weights = load_file(EMU3 / "model.safetensors")
    found = dict(names.ours(name, leaf) for name, leaf in weights.items())
    return {name: leaf.contiguous() for name, leaf in found.items()}


def write_transformers(folder: Path, prefix: str = "", **changed: object) -> Path:
    """As `Emu3VQVAE.save_pretrained` writes it, or, with a prefix, as a whole Emu3 has it."""
    folder.mkdir(parents=True)
    stored = json.loads((GOLDEN / "emu3_hf_small" / "config.json").read_text()) | changed
    whole = {"model_type": "emu3", "vq_config": stored} if prefix else stored
    (folder / "config.json").write_text(json.dumps(whole))
    weights = {f"{prefix}{name}": leaf for name, leaf in renamed().items()}
    save_file(weights | (REST if prefix else {}), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str) -> None:
    check_golden(open_tokenizer(EMU3, SMALL).network().requires_grad_(False), EMU3, shape)


def test_transformers_class_itself_gives_these_codes_and_images(tmp_path: Path) -> None:
    from transformers import Emu3VQVAE

    theirs = Emu3VQVAE.from_pretrained(write_transformers(tmp_path / "theirs"))
    network = open_tokenizer(tmp_path / "theirs", SMALL).network().requires_grad_(False)
    images = torch.from_numpy(golden(EMU3, "inputs"))
    pixels = images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        encoded = theirs.encode(pixels, torch.tensor([[32, 32]] * len(pixels)))
        codes = torch.stack(getattr(encoded, "image_tokens", encoded))  # before transformers 5 a list of them
        painted = theirs.decode(codes)
        made = network.reconstruct(network.quantize.lookup(codes))
    assert (network.encode(images).reshape(codes.shape) != codes).float().mean() < 0.01  # near-ties
    assert (painted - made).abs().max() < 1e-4


@pytest.mark.parametrize("form", ["its own", "transformers", "a whole Emu3"])
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    if form == "its own":
        folder.mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(EMU3 / file, folder)
    else:
        write_transformers(folder, "model.vqmodel." if form == "a whole Emu3" else "")
    opened = open_tokenizer(folder, SMALL)
    assert (opened.format, opened.spec.name, opened.spec.preprocessing) == ("emu3", "mine", "center_crop")
    assert opened.weights_id() == open_tokenizer(EMU3, SMALL).weights_id()
    assert (opened.spec.grid, opened.spec.codebook_size, opened.spec.pixel_range) == (16, 150, (-1.0, 1.0))


def test_converted_it_gives_the_same_codes(tmp_path: Path) -> None:
    opened = open_tokenizer(EMU3, SMALL)
    converted = opened.convert(tmp_path / "own")
    assert (converted.codebook_id(), converted.weights_id()) == (opened.codebook_id(), opened.weights_id())
    assert converted.config == opened.config
    images = golden(EMU3, "inputs")
    running = [one.load(device="cpu", dtype="float32", batch_size=4, threads=1) for one in (opened, converted)]
    codes = [one.encode(images) for one in running]
    np.testing.assert_array_equal(*codes)
    np.testing.assert_array_equal(*(one.decode(codes[0]) for one in running))


def test_half_precision_runs() -> None:
    running = open_tokenizer(EMU3, SMALL).load(device="cpu", dtype="bfloat16", batch_size=4, threads=1)
    codes = running.encode(golden(EMU3, "inputs"))
    assert (codes == golden(EMU3, "expected_codes").reshape(codes.shape)).mean() > 0.8
    assert running.decode(codes).shape == golden(EMU3, "inputs").shape


def test_what_its_files_do_not_say_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"takes images of many sizes: give image_size \(512 and 720"):
        open_tokenizer(EMU3)
    with pytest.raises(ConfigError, match="one set of weights"):
        open_tokenizer(EMU3, TokenizerOptions(image_size=32, weights="ema"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"double_latent": True}, r"config\.json: double_latent True is not supported; expected False"),
        ({"num_attention_heads": 4}, r"config\.json: num_attention_heads 4 is not supported; expected 1"),
        ({"channel_multiplier": None}, r"config\.json: sizes that are none"),
        ({"channel_multiplier": [2, 1], "attn_resolutions": [0]}, "attention in levels of other widths than the last"),
        ({"temporal_downsample_factor": 3}, "frames must be a power of two, not 3"),
        ({"codebook_size": 10}, r"misshapen: quantize\.embedding\.weight is \[150, 4\], not \[10, 4\]"),
    ],
)
def test_another_network_is_told(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        open_tokenizer(write_transformers(tmp_path / "mine", **changed), SMALL).weights_id()


def test_a_transformers_without_the_class_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"the tokenizer of Emu3 is a class of transformers: .*; upgrade it"):
        emu3_network.their_class()


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_emu3_visionvq.json").read_text())
    leaves = (names.ours(name, torch.empty(shape, device="meta")) for name, shape in stored.items())
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves if not name.endswith(names.COUNTER)}
    config = _config({})
    theirs = emu3_network.their_class()
    built = without_weights(lambda: emu3_network.Emu3VQ(config, theirs)).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == shapes
    assert (config.n_embed, config.factor) == (32768, 8)
