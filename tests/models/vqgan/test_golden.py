"""Our network against outputs of the reference implementations, through every checkpoint format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.vqgan import names as vqgan_names
from models.vqgan.checkpoint import convert, infer_geometry
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from models.vqgan.taming import read_taming_config
from tests.support.vqgan_checkpoints import (
    GOLDEN,
    GOLDEN_VQGAN,
    golden,
    golden_config,
    golden_weights,
    load_vqgan,
    min_dalle_weights,
    taming_yaml,
    write_taming,
    write_vqgan_jax,
)

F16 = VQGANConfig()
F8_GUMBEL = VQGANConfig(ch_mult=(1, 1, 2, 4), attn_resolutions=(32,), n_embed=8192, quantizer="gumbel")


def through_flax(folder: Path) -> VQGAN:
    return load_vqgan(GOLDEN_VQGAN)


def through_taming(folder: Path) -> VQGAN:
    return load_vqgan(write_taming(folder, golden_weights(), golden_config()), pixel_range=(0.0, 1.0))


def through_conversion(folder: Path) -> VQGAN:
    convert(GOLDEN_VQGAN, folder)
    return load_vqgan(folder)


FORMATS = [through_flax, through_taming, through_conversion]


@pytest.mark.parametrize("load", FORMATS)
def test_codes_and_latents_equal_the_reference(load: Callable[[Path], VQGAN], tmp_path: Path) -> None:
    model = load(tmp_path)
    with torch.inference_mode():
        latents = model.latents(torch.from_numpy(golden("inputs")).permute(0, 3, 1, 2))
        codes = model.codes(latents)
    np.testing.assert_allclose(latents.numpy(), golden("expected_latents"), atol=5e-4, rtol=0)
    np.testing.assert_array_equal(codes.numpy(), golden("expected_tokens"))


@pytest.mark.parametrize("load", FORMATS)
@pytest.mark.parametrize(
    ("codes", "recon"), [("expected_tokens", "expected_recon"), ("random_tokens", "expected_random_recon")]
)
def test_reconstructions_equal_the_reference(
    load: Callable[[Path], VQGAN], codes: str, recon: str, tmp_path: Path
) -> None:
    model = load(tmp_path)
    with torch.inference_mode():
        pixels = model.reconstruct(model.embed(torch.from_numpy(golden(codes)).long())).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pixels.numpy(), golden(recon), atol=1e-4, rtol=0)


def test_a_min_dalle_decoder_reconstructs_as_the_whole_model(tmp_path: Path) -> None:
    (tmp_path / "vqgan").mkdir()
    torch.save(min_dalle_weights(golden_weights()), tmp_path / "vqgan" / "detoker.pt")
    model = load_vqgan(tmp_path)
    with torch.inference_mode():
        pixels = model.reconstruct(model.embed(torch.from_numpy(golden("expected_tokens")).long())).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pixels.numpy(), golden("expected_recon"), atol=1e-4, rtol=0)


def test_channels_last_inference_gives_the_codes_of_the_reference() -> None:
    model = load_vqgan(GOLDEN_VQGAN).for_inference(torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        codes = model.codes(model.latents(torch.from_numpy(golden("inputs")).permute(0, 3, 1, 2)))
    np.testing.assert_array_equal(codes.numpy(), golden("expected_tokens"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_on_codes_with_a_wide_margin(dtype: torch.dtype) -> None:
    model = load_vqgan(GOLDEN_VQGAN).for_inference(torch.device("cpu"), dtype)
    with torch.inference_mode():
        codes = model.codes(model.latents(torch.from_numpy(golden("inputs")).permute(0, 3, 1, 2).to(dtype))).numpy()
    wide = golden("margins") > np.median(golden("margins"))
    assert (codes == golden("expected_tokens"))[wide].mean() > 0.98


def shapes_on_paper(config: VQGANConfig, encoder: bool = True) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {name: list(leaf.shape) for name, leaf in VQGAN(config, encoder=encoder).state_dict().items()}


def listed(name: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("config", "names"), [(F16, "keys_taming_f16_16384_noloss"), (F8_GUMBEL, "keys_taming_gumbel_f8_8192_noloss")]
)
def test_real_size_weights_have_the_names_and_shapes_of_taming(config: VQGANConfig, names: str) -> None:
    assert shapes_on_paper(config) == listed(names)


def test_golden_weights_have_the_names_and_shapes_of_taming() -> None:
    assert shapes_on_paper(golden_config()) == listed("vqgan_small/taming_keys")


def test_real_size_weights_have_the_names_and_shapes_of_vqgan_jax() -> None:
    theirs = {}
    for name, shape in shapes_on_paper(F16).items():
        path, leaf = vqgan_names.to_flax(name, torch.empty(shape, device="meta"))
        theirs[path] = list(leaf.shape)
        back = vqgan_names.from_flax(path, leaf)
        assert (back[0], list(back[1].shape)) == (name, shape)
    assert theirs == listed("keys_flax_vqgan_f16_16384")


def test_the_real_detokenizer_tells_its_geometry_by_its_shapes() -> None:
    shapes = {vqgan_names.from_min_dalle(name): tuple(shape) for name, shape in listed("keys_mindalle_detoker").items()}
    config = infer_geometry(shapes, Path("detoker.pt"))
    assert config == F16
    assert {name: list(shape) for name, shape in shapes.items()} == shapes_on_paper(config, encoder=False)


@pytest.mark.parametrize("config", [F16, F8_GUMBEL, replace(F16, n_embed=1024)])
def test_a_taming_yaml_describes_the_real_geometries(config: VQGANConfig, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(taming_yaml(config))
    read = VQGANConfig.from_dict(read_taming_config(tmp_path / "model.yaml"))
    assert read == replace(config, pixel_range=(-1.0, 1.0))


def test_a_written_vqgan_jax_folder_is_the_golden_one(tmp_path: Path) -> None:
    write_vqgan_jax(tmp_path, golden_weights(), golden_config())
    again = load_vqgan(tmp_path).state_dict()
    assert all(torch.equal(again[name], leaf) for name, leaf in golden_weights().items())
