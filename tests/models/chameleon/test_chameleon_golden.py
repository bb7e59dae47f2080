"""Chameleon's VQGAN equals the original: its own checkpoint, which is taming's, and transformers' folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from tests.support.families import CHAMELEON, golden, write_transformers_chameleon
from tests.support.vqgan_checkpoints import TINY, random_vqgan, write_taming

WHOLE = "model.vqmodel."


@pytest.mark.parametrize("form", ["taming", "", WHOLE, "finest first", "coarsest first"])
@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(form: str, shape: str, tmp_path: Path) -> None:
    if form == "taming":
        folder = CHAMELEON
    elif form.endswith("first"):
        folder = write_transformers_chameleon(tmp_path / "hf", WHOLE, decoder=form)
    else:
        folder = write_transformers_chameleon(tmp_path / "hf", form)
    opened = open_tokenizer(folder)
    network = opened.network().requires_grad_(False)
    latents = network.image_latents(torch.from_numpy(golden(CHAMELEON, f"inputs{shape}")))
    expected = golden(CHAMELEON, f"expected_codes{shape}")
    codes = network.codes(latents).numpy().reshape(expected.shape)
    assert np.abs(latents.numpy() - golden(CHAMELEON, f"expected_latents{shape}")).max() < 2e-4
    np.testing.assert_array_equal(codes, expected)
    assert opened.spec.has_decoder == (form not in ("", WHOLE))
    if opened.spec.has_decoder:
        with torch.inference_mode():
            vectors = network.quantize.lookup(torch.from_numpy(expected).long())
            images = network.reconstruct(vectors).permute(0, 2, 3, 1).numpy()
        assert np.abs(images - golden(CHAMELEON, f"expected_recon{shape}")).max() < 2e-4


def test_a_folder_of_transformers_encodes_and_refuses_to_decode(tmp_path: Path) -> None:
    opened = open_tokenizer(write_transformers_chameleon(tmp_path / "hf"))
    assert (opened.format, opened.spec.resolution, opened.spec.preprocessing) == ("chameleon", 48, "chameleon")
    assert opened.codebook_id() == open_tokenizer(CHAMELEON).codebook_id()
    converted = opened.convert(tmp_path / "own")
    for checkpoint in (opened, converted):
        running = checkpoint.load(device="cpu", dtype="float32", batch_size=4, threads=1)
        codes = running.encode(golden(CHAMELEON, "png_pixels")[:4])
        np.testing.assert_array_equal(codes, golden(CHAMELEON, "png_codes")[:4].reshape(4, -1))
        with pytest.raises(ConfigError, match="holds an encoder only: it can encode images, not decode codes"):
            running.decode(codes)


def test_it_has_no_averaged_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one set of weights"):
        open_tokenizer(write_transformers_chameleon(tmp_path / "hf"), TokenizerOptions(weights="ema"))


@pytest.mark.parametrize("attention", ["none", "vanilla"])
def test_a_configuration_without_attention_has_none_in_the_middle_either(attention: str, tmp_path: Path) -> None:
    weights = dict(random_vqgan().state_dict())
    kept = {name: value for name, value in weights.items() if attention == "vanilla" or ".attn" not in name}
    write_taming(tmp_path, kept, TINY)
    path = tmp_path / "model.yaml"
    path.write_text(path.read_text().replace("attn_resolutions:", f"attn_type: {attention}\n      attn_resolutions:"))
    opened = open_tokenizer(tmp_path)
    assert opened.config.middle_attention == (attention == "vanilla")
    assert opened.network().encode(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).shape == (1, 64)


def test_another_attention_is_refused(tmp_path: Path) -> None:
    write_taming(tmp_path, dict(random_vqgan().state_dict()), TINY)
    path = tmp_path / "model.yaml"
    path.write_text(path.read_text().replace("attn_resolutions:", "attn_type: linear\n      attn_resolutions:"))
    with pytest.raises(ConfigError, match="attn_type 'linear' is not supported; expected vanilla or none"):
        open_tokenizer(tmp_path)
