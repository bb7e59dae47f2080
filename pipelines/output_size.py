"""What a row of an output takes, in bytes: as measured on outputs of the commands, to tell before there is one."""

from __future__ import annotations

import math

from models.image_tokenizer import TokenizerSpec
from transforms.outputs.layout import ImageOutput

ROW = 40.0  # key, caption and sizes, compressed
# Bytes a pixel of decoded images: of 64 pixels a side the flat drawings of the sample take 1.5, 0.4 and 0.7, noise like
# photographs 1.8, 0.5 and 1.0.
PER_PIXEL = {"png": 1.6, "webp": 0.45, "jpeg": 0.85}


def of_codes(spec: TokenizerSpec) -> float:
    """A row of tokens without columns that are copied: random codes cannot be compressed below their bits."""
    return ROW + spec.codes_per_image * math.log2(spec.codebook_size) / 8


def of_image(spec: TokenizerSpec, written: ImageOutput) -> float:
    """An image of the model's size, and its row."""
    return ROW + spec.resolution**2 * PER_PIXEL[written.image_format]
