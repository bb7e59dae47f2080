"""Open MaskGIT's VQGAN as 1d-tokenizer ships it, on which RAR and MaskGIT train: convolutions, codes by distance.

One file of weights says all but the size of its images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import CheckpointError
from models.image_tokenizer import TokenizerOptions
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import MASKGIT
from models.vqgan.geometry import geometry
from models.weights.native import folder_name
from models.weights.parts import WHOLE, candidates, mentions, open_parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "maskgit"
PREPROCESSING = "llamagen"  # RAR's and 1d-tokenizer's `center_crop_arr`, too
FIRST = "encoder.conv_in.weight"
MARKS = ("encoder.down.0.block.0.norm1.weight", "decoder.up.1.upsample_conv.weight")  # TiTok's files have the second


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`. Raises `CheckpointError` if a folder holds several."""
    found = [file for file in candidates(path) if all(mentions(file, mark) for mark in MARKS)]
    if len(found) > 1 and not any(file.name in WHOLE for file in found):
        several = ", ".join(file.name for file in found[:5])
        raise CheckpointError(f"{path}: holds several tokenizers of MaskGIT ({several}); name the file")
    return found[0] if found else None


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `ConfigError` unless `options` give the image size, `CheckpointError` for weights of another network.
    """
    options.check_one_set(path)
    options.check_size(path, "the tokenizer of MaskGIT does not say how large its images are", "256 is in use")
    parts = open_parts(path)
    prefix = parts.prefix_of(FIRST)

    def leaves(only_shapes: bool = False) -> Iterator[tuple[str, Tensor]]:
        for name, leaf in parts.read(prefix, only_shapes=only_shapes):
            yield name.replace(".upsample_conv.", ".upsample."), leaf

    shapes = {name: tuple(leaf.shape) for name, leaf in leaves(True)}
    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.parent) if path.name in WHOLE else path.stem,
        config=geometry(
            shapes, None, path, network=MASKGIT, quantizer="nearest", pixel_range=(0.0, 1.0),
            preprocessing=PREPROCESSING,
        ),
        files=parts.files(prefix),
        leaves=leaves,
    )  # fmt: skip
    return opened.under(options)
