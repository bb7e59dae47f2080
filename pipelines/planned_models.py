"""The models of a job as planning needs them: what identifies them, what a picture costs, how many fit at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.checkpoints import VQGANCheckpoint
from models.devices import default_batch_size
from models.vqgan import VQGANConfig


@dataclass(frozen=True)
class PlannedModel:
    """`role` is what it is to the job: "model" where there is one, else "bart", "vqgan" or "clip".

    `source` is where it is, wherever a command is started; `about` describes it for --dry_run. `identity` goes into the
    fingerprint of the job. `flops` is roughly what one row costs, `batch_size` gives the default for "cpu" or "cuda".
    """

    role: str
    name: str
    source: str
    about: str
    identity: Mapping[str, Any]
    flops: float
    batch_size: Callable[[str], int]


def vqgan_model(checkpoint: VQGANCheckpoint, source: str, role: str = "model") -> PlannedModel:
    """A VQGAN; its identity lies flat in the fingerprint where it is the one model of the job."""
    config = checkpoint.config
    identity = {"weights_id": checkpoint.weights_id(), "pixel_range": list(config.pixel_range)}
    return PlannedModel(
        role=role,
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{checkpoint.format}, {config.resolution} px, {config.codes_per_image} codes of {config.n_embed}",
        identity=identity if role == "model" else {role: identity},
        flops=network_flops(config),
        batch_size=lambda device: default_batch_size(device, config),
    )


def network_flops(config: VQGANConfig) -> float:
    """Roughly what one picture costs: the 3x3 convolutions of the encoder."""
    total = 0.0
    for level, mult in enumerate(config.ch_mult):
        width = config.ch * mult
        side = config.resolution / 2**level
        total += 2 * 9 * width * width * side * side * 2 * config.num_res_blocks
    return total


def anywhere(model: str) -> str:
    """The name of a model, independent of the folder that this command was started in."""
    return os.path.abspath(model) if os.path.exists(model) and model != "emoji" else model
