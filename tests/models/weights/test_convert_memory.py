"""Converting and loading checkpoints of 100 to 240 MB, in a process whose peak of memory is read from the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from tests.support.bart_checkpoints import TINY_BART, flax_bart, random_bart, write_dalle_mini
from tests.support.peak_memory import peak_of
from tests.support.vqgan_checkpoints import TINY, random_vqgan, write_taming, write_vqgan_jax

CONFIG = VQGANConfig(ch=128, ch_mult=(1, 2, 4), num_res_blocks=1, attn_resolutions=(64,), n_embed=16384)
BART = DalleBartConfig(
    encoder_vocab_size=4000, image_vocab_size=2000, decoder_start_token_id=2000, d_model=512,
    encoder_layers=4, encoder_ffn_dim=1024, decoder_layers=4, decoder_ffn_dim=1024,
)  # fmt: skip
SLACK = 16 << 20  # what the allocator rounds up and does not give back


def weights(network: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: leaf.shape for name, leaf in network().state_dict().items()}
    return {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


def sizes(leaves: dict[str, Tensor]) -> list[int]:
    return [leaf.numel() * leaf.element_size() for leaf in leaves.values()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("write", "action"), [(write_vqgan_jax, "convert"), (write_vqgan_jax, "load"), (write_taming, "convert")]
)
def test_peak_memory_is_the_weights_and_their_largest_leaf(
    write: Callable[[Path, dict[str, Tensor], VQGANConfig], Path], action: str, tmp_path: Path
) -> None:
    leaves = weights(lambda: VQGAN(CONFIG))
    assert 190e6 < sum(sizes(leaves)) < 240e6
    write(tmp_path / "source", leaves, CONFIG)
    write_vqgan_jax(tmp_path / "small", dict(random_vqgan().state_dict()), TINY)
    peak = peak_of(
        "from models.vqgan.checkpoint import convert, open_checkpoint",
        "convert(arguments[2], arguments[2] + '_own')",
        {"convert": "convert(arguments[0], arguments[1])", "load": "open_checkpoint(arguments[0]).network()"}[action],
        *(tmp_path / "source", tmp_path / "own", tmp_path / "small"),
    )
    assert peak < sum(sizes(leaves)) + max(sizes(leaves)) + SLACK


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("action", ["convert", "load"])
def test_peak_memory_of_a_bart_is_its_weights_and_their_largest_leaf(action: str, tmp_path: Path) -> None:
    """The largest leaf of a stacked checkpoint is one kind of weight in all layers."""
    leaves = weights(lambda: DalleBart(BART))
    write_dalle_mini(tmp_path / "source", leaves, BART)
    stored = sizes(flax_bart(leaves, stacked=True))
    assert 100e6 < sum(stored) < 130e6
    write_dalle_mini(tmp_path / "small", dict(random_bart().state_dict()), TINY_BART)
    peak = peak_of(
        "from models.bart.checkpoint import convert_bart, open_bart",
        "convert_bart(arguments[2], arguments[2] + '_own')",
        {"convert": "convert_bart(arguments[0], arguments[1])", "load": "open_bart(arguments[0]).load()"}[action],
        *(tmp_path / "source", tmp_path / "own", tmp_path / "small"),
    )
    assert peak < sum(stored) + max(stored) + SLACK
