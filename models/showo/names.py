"""The names of the weights of Show-o's MAGVITv2; ours are taming's."""

from __future__ import annotations

MOVED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
TABLES = "quantize."  # the signs of every code: the rule says them


def ours(name: str) -> str:
    """Our name for one of theirs."""
    for theirs, moved in MOVED.items():
        name = name.replace(theirs, moved)
    return name
