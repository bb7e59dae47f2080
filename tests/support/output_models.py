"""Small models for `vqbeam convert` and `--model`, made from the golden ones in the formats of other projects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

MINI_WIDTH = 1024  # vqbeam infers the heads of a min-dalle model from it
SHAPES = {64: MINI_WIDTH, 170: 40}  # of the golden min-dalle weights -> of a model as wide as mini
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt")
OPTIONS = ("all", "many", "preln", "rmsnorm", "unstacked")  # of dalle-mini, a folder each
YAML = """\
model:
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: {embed_dim}
    n_embed: {n_embed}
    lossconfig: {{target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator, params: {{}}}}
    ddconfig:
      double_z: false
      z_channels: {z_channels}
      resolution: {resolution}
      in_channels: 3
      out_ch: 3
      ch: {ch}
      ch_mult: {ch_mult}
      num_res_blocks: {num_res_blocks}
      attn_resolutions: {attn_resolutions}
      dropout: 0.0
"""


def write_models(folder: Path, golden: Path, convert: Callable[[Path, Path], None]) -> None:
    """Writes all models below `folder`; `convert` runs `vqbeam convert`, which gives the weights torch's names."""
    vqgan = Path(shutil.copytree(golden / "vqgan_small", folder / "vqgan_jax", ignore=shutil.ignore_patterns("*.npy")))
    convert(vqgan, folder / "own")
    weights = load_file(folder / "own" / "model.safetensors")
    config = json.loads((vqgan / "config.json").read_text())
    _write_taming(folder / "taming", weights, config)
    _write_pair(folder / "dalle", golden, vqgan, config)
    _write_min_dalle(folder / "min_dalle", golden, weights)
    for option in OPTIONS:
        shutil.copytree(golden / "dallebart_options" / option, folder / "options" / option)


def _write_taming(folder: Path, weights: dict[str, Tensor], config: dict[str, object]) -> None:
    """A checkpoint that also holds what training leaves in it."""
    folder.mkdir()
    (folder / "model.yaml").write_text(YAML.format(**config))
    (folder / "lightning.yaml").write_text("lightning:\n  trainer:\n    gpus: 1\n")
    state = {**weights, "loss.perceptual_loss.net.slice1.0.weight": torch.ones(2, 2)}
    optimiser = [{"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 4.5e-6}]}]
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": optimiser}, folder / "last.ckpt")


def _write_pair(folder: Path, golden: Path, vqgan: Path, config: dict[str, object]) -> None:
    """A dalle-mini BART of 16 codes for an image, and the VQGAN at a quarter of its size, which then has as many."""
    shutil.copytree(golden / "dallebart_small", folder / "dalle_bart", ignore=shutil.ignore_patterns("*.npy"))
    for name in TOKENIZER:
        shutil.copy(golden / "text" / "tokenizer_small" / name, folder / "dalle_bart")
    shutil.copytree(vqgan, folder / "vqgan")
    (folder / "vqgan" / "config.json").write_text(json.dumps(config | {"resolution": 16, "attn_resolutions": [4]}))


def _write_min_dalle(folder: Path, golden: Path, vqgan: dict[str, Tensor]) -> None:
    """The folders of min-dalle's cache: a BART of mini's width, and the decoder of the VQGAN.

    With three layers or more, compiled code draws single images.
    """
    torch.manual_seed(0)
    bart = folder / "dalle_bart_mini"
    bart.mkdir(parents=True)
    for half in ("encoder", "decoder"):
        golden_half = torch.load(golden / "mindalle_small" / f"{half}.pt", weights_only=True)
        names = {name: name for name in golden_half if ".1." not in name}
        if half == "decoder":
            names = {name: name for name in golden_half}
            names |= {name.replace(".1.", ".2."): name for name in golden_half if ".1." in name}
        torch.save({name: _widened(name, golden_half[old], half) for name, old in names.items()}, bart / f"{half}.pt")
    for name in TOKENIZER[1:]:
        shutil.copy(golden / "text" / "tokenizer_small" / name, bart)
    kept = {name: leaf for name, leaf in vqgan.items() if name.startswith(("decoder.", "post_quant_conv."))}
    (folder / "vqgan").mkdir()
    torch.save(kept | {"embedding.weight": vqgan["quantize.embedding.weight"]}, folder / "vqgan" / "detoker.pt")


def _widened(name: str, leaf: Tensor, half: str) -> Tensor:
    """Random weights for those of a golden min-dalle model, in float16."""
    shape = [SHAPES.get(size, size) for size in leaf.shape]
    if (half, name) == ("decoder", "embed_positions.weight"):
        shape[0] = 256  # codes of an image
    if leaf.ndim == 1:
        return torch.ones(shape).half() if name.endswith("weight") else (0.1 * torch.randn(shape)).half()
    return (torch.randn(shape) / shape[1] ** 0.5).half()
