"""VQGAN checkpoints in the formats of other projects, written by plain means, for the loader tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
import yaml
from torch import Tensor

from models.image_tokenizer import PixelRange, TokenizerOptions
from models.vqgan import names as vqgan_names
from models.vqgan.checkpoint import open_checkpoint
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from tests.support.paths import GOLDEN

GOLDEN_VQGAN = GOLDEN / "vqgan_small"
TINY = VQGANConfig(
    ch=32,
    ch_mult=(1, 1),
    num_res_blocks=1,
    attn_resolutions=(8,),
    resolution=16,
    z_channels=8,
    embed_dim=4,
    n_embed=32,
)
TINY_GUMBEL = replace(TINY, quantizer="gumbel")


def load_vqgan(path: Path, pixel_range: PixelRange | None = None) -> VQGAN:
    return open_checkpoint(path, TokenizerOptions(pixel_range)).network()


def golden(name: str) -> np.ndarray:
    return np.load(GOLDEN_VQGAN / f"{name}.npy")


def golden_weights() -> dict[str, Tensor]:
    return dict(load_vqgan(GOLDEN_VQGAN).state_dict())


def golden_config() -> VQGANConfig:
    return load_vqgan(GOLDEN_VQGAN).config


def random_vqgan(config: VQGANConfig = TINY, seed: int = 0) -> VQGAN:
    torch.manual_seed(seed)
    return VQGAN(config).eval().requires_grad_(False)


def flax_array(value: np.ndarray | Tensor) -> msgpack.ExtType:
    """An array as flax's `_ndarray_to_bytes` packs it."""
    if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
        shape, dtype, data = tuple(value.shape), "bfloat16", value.contiguous().view(torch.int16).numpy().tobytes()
    else:
        array = np.asarray(value)
        shape, dtype, data = array.shape, array.dtype.name, array.tobytes()
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, data), use_bin_type=True))


def flax_file(leaves: Mapping[str, np.ndarray | Tensor]) -> bytes:
    """A msgpack file of leaves, nested by the slashes in their names."""
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = flax_array(value)
    return msgpack.packb(tree, use_bin_type=True)


def write_vqgan_jax(folder: Path, weights: dict[str, Tensor], config: VQGANConfig) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {k: v for k, v in config.to_dict().items() if k not in ("pixel_range", "quantizer")}
    (folder / "config.json").write_text(json.dumps({**values, "architectures": ["del"], "double_z": False}))
    leaves = dict(vqgan_names.to_flax(name, leaf) for name, leaf in weights.items())
    (folder / "flax_model.msgpack").write_bytes(flax_file(leaves))
    return folder


def taming_yaml(config: VQGANConfig, **ddconfig: Any) -> str:
    names = ("z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "attn_resolutions")
    values = config.to_dict()
    described = {name: values[name] for name in names} | {"double_z": False, "dropout": 0.0} | ddconfig
    target = {"nearest": "VQModel", "gumbel": "GumbelVQ"}[config.quantizer]
    params = {
        "embed_dim": config.embed_dim,
        "n_embed": config.n_embed,
        "ddconfig": described,
        "lossconfig": {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": {}},
    }
    return yaml.safe_dump({"model": {"target": f"taming.models.vqgan.{target}", "params": params}})


def write_taming(folder: Path, weights: dict[str, Tensor], config: VQGANConfig, **content: Any) -> Path:
    """`model.yaml`, and `last.ckpt` with a loss and an optimiser besides the network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(taming_yaml(config))
    (folder / "lightning.yaml").write_text("lightning:\n  trainer:\n    gpus: 1\n")
    state = {**weights, "loss.perceptual_loss.net.slice1.0.weight": torch.ones(2, 2)}
    optimiser = [{"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 4.5e-6}]}]
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": optimiser, **content}, folder / "last.ckpt")
    return folder


def min_dalle_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {k: v for k, v in weights.items() if k.startswith(("decoder.", "post_quant_conv."))}
    return {"embedding.weight": weights["quantize.embedding.weight"], **kept}
