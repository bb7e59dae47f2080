"""LlamaGen's tokenizer, which is Janus', equals the original in each form in which its files are passed on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import find
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.llamagen import names
from models.llamagen.checkpoint import find as find_llamagen
from models.vqgan.config import VQGANConfig
from models.vqgan.geometry import geometry
from models.vqgan.names import levels_in
from models.vqgan.network import VQGAN
from models.weights.checks import without_weights
from tests.support.families import (
    LLAMAGEN,
    SMALL,
    golden,
    llamagen_weights,
    write_hub_folder,
    write_janus,
    write_pt,
    write_transformers_janus,
)
from tests.support.paths import GOLDEN

FORMS: dict[str, Callable[[Path], Path]] = {
    "model": lambda folder: write_pt(folder, model=llamagen_weights()),
    "ema": lambda folder: write_pt(folder, ema=llamagen_weights()),
    "state_dict": lambda folder: write_pt(folder, state_dict=llamagen_weights()),
    "plain": lambda folder: write_pt(folder, **llamagen_weights()),
    "file": lambda folder: write_pt(folder, model=llamagen_weights()) / "vq_ds2_small.pt",
    "trainer": lambda folder: write_pt(
        folder, model=llamagen_weights(), optimizer={"state": {0: torch.ones(2)}}, steps=7, args=argparse.Namespace(a=1)
    ),
    "hub": write_hub_folder,
    "janus": write_janus,
    "janus in parts": lambda folder: write_janus(folder, parts=True),
    "janus pickled": lambda folder: write_janus(folder, pickled=True),
    "janus pickled in parts": lambda folder: write_janus(folder, parts=True, pickled=True),
    "transformers": write_transformers_janus,
    "transformers, whole": lambda folder: write_transformers_janus(folder, "model.vqmodel."),
}


@pytest.fixture(scope="module")
def network() -> VQGAN:
    return open_tokenizer(LLAMAGEN, SMALL).network().requires_grad_(False)


@pytest.fixture(scope="module")
def weights_id() -> str:
    return open_tokenizer(LLAMAGEN, SMALL).weights_id()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path, weights_id: str) -> None:
    opened = open_tokenizer(FORMS[form](tmp_path / "vq_ds2_small"), SMALL)
    assert (opened.format, opened.spec.name, opened.weights_id()) == ("llamagen", "vq_ds2_small", weights_id)
    assert (opened.spec.grid, opened.spec.codebook_size, opened.spec.pixel_range) == (16, 256, (-1.0, 1.0))
    assert opened.spec.preprocessing == "llamagen"


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str, network: VQGAN) -> None:
    latents = network.image_latents(torch.from_numpy(golden(LLAMAGEN, f"inputs{shape}")))
    expected = golden(LLAMAGEN, f"expected_codes{shape}")
    codes = network.codes(latents).numpy().reshape(expected.shape)
    assert np.abs(latents.numpy() - golden(LLAMAGEN, f"expected_latents{shape}")).max() < 2e-4
    np.testing.assert_array_equal(codes, expected)
    with torch.inference_mode():
        vectors = network.quantize.lookup(torch.from_numpy(expected).long())
        images = network.reconstruct(vectors).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - golden(LLAMAGEN, f"expected_recon{shape}")).max() < 2e-4


def test_random_codes_decode_as_in_the_original(network: VQGAN) -> None:
    codes = torch.from_numpy(golden(LLAMAGEN, "random_codes")).long()
    with torch.inference_mode():
        images = network.reconstruct(network.embed(codes.flatten(1))).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - golden(LLAMAGEN, "expected_random_recon")).max() < 2e-4


def test_the_nearest_row_would_be_another_code(network: VQGAN) -> None:
    """The rows have unequal lengths: this set shows whether they are normalised."""
    latents = torch.from_numpy(golden(LLAMAGEN, "expected_latents")).reshape(-1, 8)
    nearest = torch.cdist(latents, network.quantize.embedding.weight).argmin(1)
    assert (nearest != torch.from_numpy(golden(LLAMAGEN, "expected_codes")).flatten()).float().mean() > 0.4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_running_it_gives_codes_of_the_search_in_float32(dtype: str, network: VQGAN) -> None:
    running = open_tokenizer(LLAMAGEN, SMALL).load(device="cpu", dtype=dtype, batch_size=4, threads=1)
    images = golden(LLAMAGEN, "inputs")[:2]
    latents, codes = running.latents(images), running.encode(images)
    np.testing.assert_allclose(np.linalg.norm(latents, axis=-1), 1, rtol=1e-5)
    unit = network.quantize.codebook.detach().numpy().astype(np.float64)
    np.testing.assert_array_equal(codes.reshape(-1), (latents.reshape(-1, 8).astype(np.float64) @ unit.T).argmax(1))
    np.testing.assert_array_equal(running.quantise(latents), codes)
    np.testing.assert_array_equal(running.codebook, network.quantize.codebook.detach().numpy())


def test_the_size_of_its_images_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vq_ds2_small\.pt: .* give image_size \(256, 384 and 512 are in use"):
        open_tokenizer(LLAMAGEN)
    opened = open_tokenizer(LLAMAGEN, TokenizerOptions(image_size=48))
    assert (opened.spec.resolution, opened.spec.codes_per_image) == (48, 576)
    assert opened.choices == {"image_size": 48}
    with pytest.raises(ConfigError, match=r"image_size 33: .* sides in multiples of 2"):
        open_tokenizer(LLAMAGEN, TokenizerOptions(image_size=33))


def test_averaged_and_raw_weights_are_told_apart_by_name(tmp_path: Path, weights_id: str) -> None:
    averaged = {name: value * 0.5 for name, value in llamagen_weights().items()}
    folder = write_pt(tmp_path, ema=averaged, model=llamagen_weights())
    with pytest.raises(ConfigError, match=r"averaged weights \(ema\) and raw ones \(model\): choose with weights"):
        open_tokenizer(folder, SMALL)
    raw, ema = (open_tokenizer(folder, replace(SMALL, weights=name)) for name in ("raw", "ema"))
    assert raw.weights_id() == weights_id != ema.weights_id()
    assert ema.choices == {"weights": "ema", "image_size": 32}
    converted = ema.convert(tmp_path / "own")
    assert converted.weights_id() == ema.weights_id()
    assert converted.choices == {"weights": "ema"}
    with pytest.raises(ConfigError, match="holds one set of weights; leave weights out"):
        open_tokenizer(tmp_path / "own", TokenizerOptions(weights="raw"))


@pytest.mark.parametrize(("held", "asked"), [("model", "ema"), ("ema", "raw")])
def test_weights_that_are_not_there_are_named(held: str, asked: str, tmp_path: Path) -> None:
    folder = write_pt(tmp_path, **{held: llamagen_weights()})
    with pytest.raises(ConfigError, match=f"holds no .* weights, but {held}"):
        open_tokenizer(folder, replace(SMALL, weights=asked))


def test_of_several_files_one_is_to_be_named(tmp_path: Path) -> None:
    write_pt(tmp_path, model=llamagen_weights())
    (tmp_path / "vq_ds16_t2i.pt").write_bytes((tmp_path / "vq_ds2_small.pt").read_bytes())
    torch.save({"model": {"tok_embeddings.weight": torch.ones(2, 2)}}, tmp_path / "c2i_B_256.pt")
    with pytest.raises(CheckpointError, match=r"several tokenizers .*\(vq_ds16_t2i\.pt, vq_ds2_small\.pt\); name the"):
        _ = find(str(tmp_path), "", SMALL).tokenizer
    assert find(str(tmp_path / "vq_ds16_t2i.pt"), "", SMALL).tokenizer.spec.name == "vq_ds16_t2i"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = write_janus(tmp_path / "janus", parts=True)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00003\.safetensors, which the folder lacks"):
        open_tokenizer(folder, SMALL)


def test_weights_with_similar_names_are_another_family(tmp_path: Path) -> None:
    similar = {name.replace("conv_blocks", "conv_block"): value for name, value in llamagen_weights().items()}
    write_pt(tmp_path, model=similar)
    assert find_llamagen(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"Expected .*LlamaGen.*Janus.*Chameleon.*; found vq_ds2_small\.pt"):
        open_tokenizer(tmp_path, SMALL)


def test_a_converted_tokenizer_knows_all_that_was_asked(tmp_path: Path, network: VQGAN) -> None:
    converted = open_tokenizer(LLAMAGEN, SMALL).convert(tmp_path / "own", "mine")
    assert (converted.spec.name, converted.spec.resolution, converted.spec.preprocessing) == ("mine", 32, "llamagen")
    other = converted.network()
    assert other.config == network.config
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
    assert open_tokenizer(tmp_path / "own", TokenizerOptions(image_size=64)).spec.grid == 32
    written = json.loads((tmp_path / "own" / "config.json").read_text())
    assert (written["quantizer"], written["converted_from"]) == ("cosine", "llamagen")


@pytest.mark.parametrize(("name", "ch_mult"), [("vq16", (1, 1, 2, 2, 4)), ("vq8", (1, 2, 2, 4))])
def test_the_published_shapes_give_the_published_geometry(name: str, ch_mult: tuple[int, ...]) -> None:
    stored = json.loads((GOLDEN / f"keys_llamagen_{name}.json").read_text())
    levels = levels_in(stored)
    shapes = {names.ours(key, levels): tuple(shape) for key, shape in stored.items() if key != names.COUNTER}
    config = geometry(shapes, 384, Path("vq.pt"), quantizer="cosine", pixel_range=(-1.0, 1.0))
    side = 384 // 2 ** (len(ch_mult) - 1)
    assert config == VQGANConfig(
        ch=128, ch_mult=ch_mult, num_res_blocks=2, attn_resolutions=(side,), resolution=384, z_channels=256,
        embed_dim=8, n_embed=16384, quantizer="cosine", pixel_range=(-1.0, 1.0),
    )  # fmt: skip
    built = without_weights(lambda: VQGAN(config)).state_dict()
    assert {key: tuple(value.shape) for key, value in built.items()} == shapes
