"""The golden sets through Winograd's algorithm: codes, latents and reconstructions of the original implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.winograd import layers
from tests.support.paths import GOLDEN

SIZED = TokenizerOptions(image_size=32)
SETS = {
    "llamagen_small": SIZED,
    "chameleon_small": SIZED,
    "diffusers_small": TokenizerOptions(image_size=32, pixel_range=(0.0, 1.0)),
    "lfq_small": TokenizerOptions(),
    "maskgit_small": SIZED,
    "ibq_small": TokenizerOptions(),
    "showo_small": SIZED,
}


@pytest.mark.parametrize("name", SETS)
@torch.inference_mode()
def test_a_golden_set_is_reproduced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LEAST_PIXELS", 1)
    folder = GOLDEN / name
    network = open_tokenizer(folder, SETS[name]).network().requires_grad_(False)
    plain = open_tokenizer(folder, SETS[name]).network().requires_grad_(False)
    assert layers.use_winograd(network, 2)
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    if inputs.dtype == torch.uint8:
        latents, direct = network.image_latents(inputs), plain.image_latents(inputs)
    else:
        pixels = inputs if inputs.shape[1] == 3 else inputs.permute(0, 3, 1, 2)
        latents, direct = network.latents(pixels), plain.latents(pixels)
    torch.testing.assert_close(latents, direct, atol=2e-4, rtol=0)
    found, right = network.codes(latents).numpy(), np.load(folder / "expected_codes.npy")
    assert np.mean(found.reshape(-1) == right.reshape(-1)) > 0.995
    codes = torch.from_numpy(right.astype(np.int64)).reshape(len(inputs), -1)
    recon = network.reconstruct(network.embed(codes))
    torch.testing.assert_close(recon, plain.reconstruct(plain.embed(codes)), atol=2e-4, rtol=1e-4)
