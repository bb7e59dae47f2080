"""Which weights of a VQGAN encode and which decode; the names are the same here, in taming and in diffusers."""

from __future__ import annotations

from torch import nn

ENCODING = ("encoder.", "quant_conv.", "quantize.")
DECODING = ("quantize.", "post_quant_conv.", "decoder.")


def count_weights(network: nn.Module, parts: tuple[str, ...]) -> int:
    """Numbers in the parameters whose names begin like one of `parts`."""
    return sum(weight.numel() for name, weight in network.named_parameters() if name.startswith(parts))
