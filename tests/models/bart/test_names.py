"""All names and shapes of the published sizes, as dalle-mini and min-dalle list them, against our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bart import names as bart_names
from models.bart.checkpoint import infer_geometry
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
from tests.support.paths import GOLDEN

MINI = DalleBartConfig()
MEGA = DalleBartConfig(
    encoder_vocab_size=50272, image_vocab_size=16415, d_model=2048, decoder_start_token_id=16415,
    encoder_layers=24, encoder_ffn_dim=4096, encoder_attention_heads=32,
    decoder_layers=24, decoder_ffn_dim=4096, decoder_attention_heads=32,
)  # fmt: skip


def shapes_of(config: DalleBartConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in DalleBart(config).state_dict().items()}


@pytest.mark.parametrize(("size", "config"), [("mini", MINI), ("mega", MEGA)])
@pytest.mark.parametrize("scan", [True, False])
def test_dalle_minis_names_and_shapes_at_real_size_are_ours_one_to_one(
    size: str, config: DalleBartConfig, scan: bool
) -> None:
    keys = json.loads((GOLDEN / f"keys_flax_dallebart_{size}_scan{scan}.json").read_text())
    found = [
        (ours, list(leaf.shape))
        for name, shape in keys.items()
        for ours, leaf in bart_names.from_flax(name, torch.empty(shape, device="meta"), config.ln_positions)
    ]
    assert len(found) == len(dict(found))
    assert dict(found) == shapes_of(config)


@pytest.mark.parametrize(("size", "config"), [("mini", MINI), ("mega", MEGA)])
def test_min_dalles_names_and_shapes_at_real_size_are_ours_one_to_one(size: str, config: DalleBartConfig) -> None:
    keys = {
        f"{half}.{name}": shape
        for half in ("encoder", "decoder")
        for name, shape in json.loads((GOLDEN / f"keys_mindalle_{size}_{half}.json").read_text()).items()
    }
    inferred = infer_geometry({name: tuple(shape) for name, shape in keys.items()}, Path("."), force_ln_scale=False)
    assert inferred == replace(config, normalize_text=True)
    assert keys == shapes_of(replace(config, force_ln_scale=True))
    assert {name: shape for name, shape in keys.items() if not bart_names.needless_scale(name)} == shapes_of(config)
