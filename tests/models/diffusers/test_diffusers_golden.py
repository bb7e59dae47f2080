"""A VQModel of diffusers equals the original in each form of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.diffusers import names
from models.diffusers.checkpoint import find as find_diffusers
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.vqgan.config import LevelShape, VQGANConfig
from models.vqgan.network import VQGAN
from models.weights.checks import without_weights
from tests.support.families import DIFFUSERS, check_golden, write_diffusers
from tests.support.paths import GOLDEN

ASKED = TokenizerOptions(pixel_range=(0.0, 1.0), image_size=40)
FILE = "diffusion_pytorch_model.safetensors"
FORMS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: write_diffusers(path / "mine"),
    "file": lambda path: write_diffusers(path / "mine") / FILE,
    "pickled": lambda path: write_diffusers(path / "mine", pickled=True),
    "in parts": lambda path: write_diffusers(path / "mine", parts=True),
    "pickled in parts": lambda path: write_diffusers(path / "mine", pickled=True, parts=True),
    "pipeline": lambda path: write_diffusers(path / "mine" / "vqvae").parent,
    "part of a pipeline": lambda path: write_diffusers(path / "mine" / "vqvae"),
}


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str) -> None:
    check_golden(open_tokenizer(DIFFUSERS, ASKED).network().requires_grad_(False), DIFFUSERS, shape)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path) -> None:
    opened = open_tokenizer(FORMS[form](tmp_path), ASKED)
    assert (opened.format, opened.spec.name) == ("diffusers", "mine")
    assert opened.weights_id() == open_tokenizer(DIFFUSERS, ASKED).weights_id()
    assert (opened.spec.grid, opened.spec.codebook_size, opened.spec.pixel_range) == (10, 200, (0.0, 1.0))


def test_what_the_folder_does_not_say_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not say the range .*give pixel_range.*; nor how large .*image_size"):
        open_tokenizer(DIFFUSERS)
    with pytest.raises(ConfigError, match=r"does not say the range of its pixels: give pixel_range \(0,1 for aMUSEd"):
        open_tokenizer(DIFFUSERS, replace(ASKED, pixel_range=None))
    opened = open_tokenizer(DIFFUSERS, ASKED)
    assert opened.choices == {"pixel_range_given": True, "image_size": 40}
    converted = opened.convert(tmp_path / "own")
    assert (converted.spec.pixel_range, converted.spec.resolution, converted.choices) == ((0.0, 1.0), 40, {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"norm_type": "spatial"},
            r"config\.json: norm_type 'spatial' \(a MoVQ, .*\) is not supported; expected group",
        ),
        ({"act_fn": "relu"}, "act_fn 'relu' is not supported; expected silu"),
        ({"norm_num_groups": 16}, "norm_num_groups 16 is not supported; expected 32"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "down_block_types has 1 levels, block_out_channels has 3"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 2 + ["X"]}, "up_block_types: X is not supported; expected UpDec"),
        ({"block_out_channels": 32}, "block_out_channels must be a list, not 32"),
        ({"layers_per_block": "two"}, "layers_per_block 'two' is no whole number"),
        ({"num_vq_embeddings": None}, "n_embed must be 1 to"),
    ],
)
def test_another_network_is_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tokenizer(write_diffusers(tmp_path / "vqvae", **changed), ASKED)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers_per_block": 2}, r"do not fit the configuration; missing: encoder\.down\.0\.block\.1"),
        ({"mid_block_add_attention": True}, r"missing: encoder\.mid\.attn_1\.norm\.weight"),
        ({"num_vq_embeddings": 100}, r"misshapen: quantize\.embedding\.weight is \[200, 16\], not \[100, 16\]"),
    ],
)
def test_weights_of_another_geometry_are_named(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(write_diffusers(tmp_path / "vqvae", **changed), ASKED).weights_id()


def test_of_several_folders_one_is_to_be_named(tmp_path: Path) -> None:
    for name in ("vqmodel", "vqmodel_ema"):
        write_diffusers(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"several tokenizers \(vqmodel, vqmodel_ema\); name the folder"):
        open_tokenizer(tmp_path, ASKED)
    assert open_tokenizer(tmp_path / "vqmodel", ASKED).spec.codebook_size == 200


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    (write_diffusers(tmp_path / "vqvae") / FILE).unlink()
    with pytest.raises(CheckpointError, match=rf"no weights beside config\.json; expected {FILE}; found config\.json"):
        open_tokenizer(tmp_path, ASKED)


def test_other_models_of_diffusers_are_not_ours(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "vae", _class_name="AutoencoderKL")
    assert find_diffusers(folder) is None
    with pytest.raises(CheckpointError, match=r"AutoencoderKL of diffusers, which vqbeam does not read"):
        open_tokenizer(folder, ASKED)


@pytest.mark.parametrize("old", [False, True])
def test_attention_is_where_the_types_of_blocks_say(old: bool, tmp_path: Path) -> None:
    """Of the encoder from the finest level, of the decoder from the coarsest; the halves are independent."""
    folder = write_diffusers(
        tmp_path / "vqvae",
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
        mid_block_add_attention=True,
    )
    weights, torch_seed = load_file(folder / FILE), torch.Generator().manual_seed(0)
    linear = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")
    blocks = {
        "encoder.down_blocks.1.attentions.0": 64, "encoder.mid_block.attentions.0": 32,
        "decoder.mid_block.attentions.0": 32, "decoder.up_blocks.0.attentions.0": 32,
        "decoder.up_blocks.0.attentions.1": 32,
    }  # fmt: skip
    for block, width in blocks.items():
        weights |= {f"{block}.group_norm.{name}": torch.ones(width) for name in ("weight", "bias")}
        for name in linear:
            weights[f"{block}.{name}.weight"] = torch.randn(width, width, generator=torch_seed)
            weights[f"{block}.{name}.bias"] = torch.zeros(width)
    save_file(weights, folder / FILE)
    network = open_tokenizer(folder, ASKED).network()
    assert [level.attention for level in network.config.levels_down] == [False, True, False]
    assert [level.attention for level in network.config.levels_up] == [False, False, True]
    loaded = network.state_dict()
    for theirs, ours in zip(linear, ("q", "k", "v", "proj_out"), strict=True):
        expected = weights[f"decoder.up_blocks.0.attentions.1.{theirs}.weight"]
        assert torch.equal(loaded[f"decoder.up.2.attn.1.{ours}.weight"][:, :, 0, 0], expected)


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_diffusers_amused.json").read_text())
    widths = (128, 256, 256, 512, 768)
    config = VQGANConfig(
        encoder_levels=tuple(LevelShape(width, 2, False) for width in widths),
        decoder_levels=tuple(LevelShape(width, 3, False) for width in widths),
        middle_attention=False, z_channels=64, embed_dim=64, n_embed=8192,
    )  # fmt: skip
    built = without_weights(lambda: VQGAN(config)).state_dict()
    renamed = {names.ours(key, len(widths)): tuple(shape) for key, shape in stored.items()}
    assert {key: tuple(value.shape) for key, value in built.items()} == renamed


def test_the_names_of_attention_are_those_that_are_published() -> None:
    """Kandinsky's MoVQ, of which the encoder is a plain one, with attention in its last level."""
    stored = json.loads((GOLDEN / "keys_diffusers_movq_kandinsky22.json").read_text())
    widths = (128, 256, 256, 512)
    levels = tuple(LevelShape(width, 2, width == 512) for width in widths)
    config = VQGANConfig(encoder_levels=levels, decoder_levels=levels, z_channels=4, embed_dim=4)
    built = without_weights(lambda: VQGAN(config, decoder=False)).state_dict()
    renamed = {names.ours(key, len(widths)) for key in stored if key.startswith("encoder.")}
    assert renamed == {key for key in built if key.startswith("encoder.")}
