"""DALL·E BART checkpoints in every format, written by plain means, for the tests of loaders and generation."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from models.bart.checkpoint import HEADS, BartCheckpoint, open_bart
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
from tests.support.paths import GOLDEN
from tests.support.vqgan_checkpoints import flax_file

GOLDEN_BART = GOLDEN / "dallebart_small"
GOLDEN_MIN_DALLE = GOLDEN / "mindalle_small"
GOLDEN_OPTIONS = GOLDEN / "dallebart_options"
TINY_BART = DalleBartConfig(
    encoder_vocab_size=20,
    image_vocab_size=12,
    image_length=9,
    max_text_length=8,
    d_model=16,
    encoder_layers=2,
    encoder_ffn_dim=24,
    encoder_attention_heads=2,
    decoder_layers=3,
    decoder_ffn_dim=20,
    decoder_attention_heads=2,
    decoder_start_token_id=12,
    normalize_text=True,
)


def golden_bart(name: str) -> Tensor:
    return torch.from_numpy(np.load(GOLDEN_BART / f"{name}.npy"))


def sampling(prompts: int, guidance_scale: float = 10, top_k: int = 0) -> dict[str, np.ndarray]:
    """The same options of a `TokenRequest` for all prompts."""
    values = {"guidance_scale": float(guidance_scale), "temperature": 1.0, "top_k": top_k, "top_p": 1.0}
    return {name: np.full(prompts, value) for name, value in values.items()}


def open_min_dalle(path: Path) -> BartCheckpoint:
    """`open_bart`, which knows the numbers of heads of published widths only, for the widths of these fixtures."""
    with patch.dict(HEADS, {TINY_BART.d_model: TINY_BART.encoder_attention_heads, 64: 4}):
        return open_bart(path)


def random_bart(config: DalleBartConfig = TINY_BART, seed: int = 0) -> DalleBart:
    """A network of random weights, also in its norms."""
    torch.manual_seed(seed)
    model = DalleBart(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


FLAX_MODULES = {
    "embed_tokens": "embed_tokens",
    "embed_positions": "embed_positions",
    "layernorm_embedding": "layernorm_embedding",
    "final_ln": "final_ln",
    "pre_self_attn_layer_norm": "LayerNorm_0",
    "self_attn_layer_norm": "LayerNorm_1",
    "pre_encoder_attn_layer_norm": "LayerNorm_2",
    "encoder_attn_layer_norm": "LayerNorm_3",
    "self_attn": "FlaxBartAttention_0",
    "encoder_attn": "FlaxBartAttention_1",
    "glu": "GLU_0",
    "ln0": "LayerNorm_0",
    "ln1": "LayerNorm_1",
    "fc0": "Dense_0",
    "fc1": "Dense_1",
    "fc2": "Dense_2",
}


def to_flax(name: str, leaf: Tensor) -> tuple[str, Tensor]:
    """The name and weight of a normformer model as dalle-mini has them without `use_scan`."""
    *path, kind = name.split(".")
    if path[-1] == "lm_head":
        return "lm_head/kernel", leaf.T
    half = path[0]
    inner = [FLAX_MODULES.get(part, part) for part in path[1:]]
    if inner[0] == "layers":
        inner[1:2] = [f"FlaxBart{half.capitalize()}Layer_{inner[1]}"]
    if path[-1].startswith("embed_"):
        kind = "embedding"
    elif kind == "weight":
        kind = "kernel" if leaf.ndim == 2 else "scale"
    return "/".join(["model", half, *inner, kind]), leaf.T if kind == "kernel" else leaf


def flax_bart(weights: dict[str, Tensor], *, stacked: bool) -> dict[str, Tensor]:
    """Our weights under dalle-mini's names; `stacked` as with `use_scan`."""
    single = dict(to_flax(name, leaf) for name, leaf in weights.items())
    if not stacked:
        return single
    leaves: dict[str, Tensor] = {}
    stacks: dict[str, list[tuple[int, Tensor]]] = {}
    for name, leaf in single.items():
        if "Layer_" not in name:
            leaves[name] = leaf
            continue
        head, _, rest = name.partition("Layer_")
        number, _, inner = rest.partition("/")
        stacks.setdefault(f"{head}Layers/{inner}", []).append((int(number), leaf))
    return leaves | {name: torch.stack([leaf for _, leaf in sorted(stack)]) for name, stack in stacks.items()}


def write_dalle_mini(
    folder: Path, weights: dict[str, Tensor], config: DalleBartConfig, *, stacked: bool = True, parts: int = 1
) -> Path:
    """`config.json`, the weights in one msgpack file or in several with an index, and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**config.to_dict(), "model_type": "dallebart", "architectures": ["eBart"], "use_scan": stacked}
    (folder / "config.json").write_text(json.dumps(values))
    leaves = flax_bart(weights, stacked=stacked)
    if parts == 1:
        (folder / "flax_model.msgpack").write_bytes(flax_file(leaves))
    else:
        names = list(leaves)
        weight_map = {name: f"flax_model-{i % parts + 1:05}-of-{parts:05}.msgpack" for i, name in enumerate(names)}
        for file in set(weight_map.values()):
            (folder / file).write_bytes(flax_file({name: leaves[name] for name in names if weight_map[name] == file}))
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / "flax_model.msgpack.index.json").write_text(json.dumps(index))
    write_tokenizer(folder, ("tokenizer.json", "vocab.json", "merges.txt", "enwiki-words-frequency.txt"))
    return folder


def write_min_dalle(
    folder: Path,
    weights: dict[str, Tensor],
    *,
    suffix: str = "",
    scales: bool = False,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """`encoder.pt`, `decoder.pt`, `vocab.json`, `merges.txt`; with `scales`, a scale of ones in every norm.

    With None for `dtype` each weight keeps its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: leaf.to(dtype or leaf.dtype) for name, leaf in weights.items()}
    if scales:
        absent = {f"{name.removesuffix('bias')}weight": leaf for name, leaf in weights.items() if "bias" in name}
        weights = {name: torch.ones_like(leaf) for name, leaf in absent.items()} | weights
    for half in ("encoder", "decoder"):
        state = {name.partition(".")[2]: leaf for name, leaf in weights.items() if name.startswith(half)}
        torch.save(state, folder / f"{half}{suffix}.pt")
    write_tokenizer(folder, (f"vocab{suffix}.json", f"merges{suffix}.txt"))
    return folder


def write_tokenizer(folder: Path, names: tuple[str, ...]) -> None:
    """Files that hold their names: loaders of weights only copy these."""
    for name in names:
        (folder / name).write_text(json.dumps({"file": name}))
