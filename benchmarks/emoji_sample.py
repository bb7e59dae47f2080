"""The sample of examples/emoji/sample, as the embedded model reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transforms.images import ImageOptions, decode_image
from transforms.inputs import InputRequest, plan_sources, read_slices

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "emoji"
SAMPLE = ROOT / "examples" / "emoji" / "sample" / "emoji-00000.tar"


def read_sample(side: int, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """Keys and pictures, uint8 [N, side, side, 3], of the first `limit` rows."""
    plan = plan_sources(InputRequest(patterns=(str(SAMPLE),)), rows_per_shard=1 << 30)
    options = ImageOptions(size=side)
    keys: list[str] = []
    pixels: list[np.ndarray] = []
    for batch in read_slices([piece.slice for piece in plan.pieces], plan.schema):
        keys += batch.column("key").to_pylist()
        pixels += [decode_image(data, options).pixels for data in batch.column("image").to_pylist()]
    return keys[:limit], np.stack(pixels[:limit])
