"""The names and layouts of DALL·E BART weights in the checkpoints of dalle-mini; our names are min-dalle's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from models.weights.flax import LEAVES

if TYPE_CHECKING:
    from torch import Tensor

HALVES = ("encoder", "decoder")
MIN_DALLE_SIZES = ("", "_mini")  # suffixes in the flat folder of the Hub; mega, the default of min-dalle, has none
BEFORE_SELF, AFTER_SELF = "pre_self_attn_layer_norm", "self_attn_layer_norm"
BEFORE_CROSS, AFTER_CROSS = "pre_encoder_attn_layer_norm", "encoder_attn_layer_norm"
NORMS = {  # of a layer, in the order in which dalle-mini numbers them
    ("encoder", "normformer"): (BEFORE_SELF, AFTER_SELF),
    ("decoder", "normformer"): (BEFORE_SELF, AFTER_SELF, BEFORE_CROSS, AFTER_CROSS),
    ("encoder", "preln"): (BEFORE_SELF,),
    ("decoder", "preln"): (BEFORE_SELF, BEFORE_CROSS),
}
FEED_FORWARD = {  # of dalle-mini's two kinds; the second has no gate
    "GLU_0": {"LayerNorm_0": "ln0", "Dense_0": "fc0", "Dense_1": "fc1", "LayerNorm_1": "ln1", "Dense_2": "fc2"},
    "FFN_0": {"LayerNorm_0": "ln0", "Dense_0": "fc0", "LayerNorm_1": "ln1", "Dense_1": "fc2"},
}


def from_flax(name: str, leaf: Tensor, ln_positions: str) -> Iterator[tuple[str, Tensor]]:
    """The weights that one leaf of a dalle-mini checkpoint holds, under our names and laid out as ours.

    A leaf of stacked layers ("model/encoder/layers/FlaxBartEncoderLayers/...", layers on axis 0) gives one a layer, any
    other gives one: ("model/encoder/layers/FlaxBartEncoderLayer_0/GLU_0/Dense_0/kernel", [in, out]) becomes
    ("encoder.layers.0.glu.fc0.weight", [out, in]). A name that dalle-mini does not have is returned unchanged.
    """
    *path, kind = name.removeprefix("params/").replace("RMSNorm_", "LayerNorm_").split("/")
    ours, stacked = _module(path, ln_positions)
    if ours is None or kind not in LEAVES or leaf.ndim <= stacked:
        yield name, leaf
        return
    for i, single in enumerate(leaf.unbind(0) if stacked else [leaf]):
        if kind == "kernel":
            single = single.T.contiguous() if single.ndim == 2 else single
        elif stacked:
            single = single.clone()  # else each would keep the whole stack
        yield f"{ours.format(i)}.{LEAVES[kind]}", single


def _module(path: Sequence[str], ln_positions: str) -> tuple[str | None, bool]:
    """Our name of a module, with {} for the number of a layer if the module is stacked, and whether it is."""
    match path:
        case ["lm_head"]:
            return "decoder.lm_head", False
        case ["model", half, module] if half in HALVES:
            return f"{half}.{module}", False
        case ["model", half, "layers", collection, *parts] if half in HALVES:
            inner = _inner(parts, NORMS[half, ln_positions])
            single = f"FlaxBart{half.capitalize()}Layer"
            if inner and collection == f"{single}s":
                return f"{half}.layers.{{}}.{inner}", True
            number = collection.removeprefix(f"{single}_")
            if inner and number.isdecimal():
                return f"{half}.layers.{number}.{inner}", False
    return None, False


def _inner(parts: Sequence[str], norms: Sequence[str]) -> str | None:
    """Our name of a module within a layer."""
    match parts:
        case ["FlaxBartAttention_0", projection]:
            return f"self_attn.{projection}"
        case ["FlaxBartAttention_1", projection]:
            return f"encoder_attn.{projection}"
        case ["GLU_0" | "FFN_0" as kind, part]:
            ours = FEED_FORWARD[kind].get(part)
            return f"glu.{ours}" if ours else None
        case [norm]:
            return dict(zip((f"LayerNorm_{i}" for i in range(len(norms))), norms, strict=True)).get(norm)
    return None


def needless_scale(name: str) -> bool:
    """Whether a weight of ours is the scale of a norm that feeds a dense layer, which the reference leaves out."""
    return name.endswith(
        (f".{BEFORE_SELF}.weight", f".{BEFORE_CROSS}.weight", ".ln0.weight", ".ln1.weight", "final_ln.weight")
    )
