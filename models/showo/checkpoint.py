"""Open Show-o's MAGVITv2: taming's blocks, halves that differ, and codes whose bits are the signs of the latents.

Its `config.json` says nothing of the network, which is read from the shapes, nor of the size of its images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import CheckpointError
from models.image_tokenizer import TokenizerOptions
from models.showo.names import TABLES, ours
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import HIGH_SIGNS
from models.vqgan.geometry import geometry
from models.weights.native import folder_name
from models.weights.parts import WHOLE, candidates, mentions, open_parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "showo"
MARKS = ("encoder.quant_conv.weight", "quantize.power_vals")  # no other family has both
WEIGHTS = "pytorch_model.safetensors"  # as its own class writes it
BITS = "encoder.quant_conv.weight"
MOST_BITS = 24  # of a code


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`."""
    named = [path / WEIGHTS] if (path / WEIGHTS).is_file() else []
    found = (file for file in (*named, *candidates(path)) if all(mentions(file, mark) for mark in MARKS))
    return next(found, None)


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `ConfigError` unless `options` give the image size, `CheckpointError` for weights of another network.
    """
    options.check_one_set(path)
    options.check_size(path, "the tokenizer of Show-o does not say how large its images are", "256 and 512 are in use")
    parts = open_parts(path)
    prefix = parts.prefix_of(BITS)

    def leaves(only_shapes: bool = False) -> Iterator[tuple[str, Tensor]]:
        for name, leaf in parts.read(prefix, only_shapes=only_shapes):
            if not name.startswith(TABLES):
                yield ours(name), leaf

    shapes = {name: tuple(leaf.shape) for name, leaf in leaves(True)}
    bits = (shapes["quant_conv.weight"] or (0,))[0]
    if not 1 <= bits <= MOST_BITS:
        raise CheckpointError(f"{path}: codes of {bits} bits; expected 1 to {MOST_BITS}")
    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.parent) if path.name in (*WHOLE, WEIGHTS) else path.stem,
        config=geometry(
            shapes, None, path, quantizer=HIGH_SIGNS, n_embed=2**bits, embed_dim=bits,
            pixel_range=(-1.0, 1.0), preprocessing=FORMAT,
        ),
        files=parts.files(prefix),
        leaves=leaves,
    )  # fmt: skip
    return opened.under(options)
