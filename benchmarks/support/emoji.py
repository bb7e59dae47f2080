"""The embedded emoji model: its sample, and what bfloat16 costs beside float32."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

import vqbeam
from benchmarks.support.machine import ROOT
from examples.emoji.measures import psnr
from transforms.image_options import ImageOptions
from transforms.images import decode_image

MODEL = ROOT / "models" / "emoji"
SAMPLE = ROOT / "examples" / "emoji" / "sample" / "emoji.parquet"
PROMPTS = ROOT / "examples" / "emoji" / "prompts.txt"
BATCH = 16


def read_sample(side: int, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """Keys and images, uint8 [N, side, side, 3], of the first `limit` rows."""
    rows = pq.read_table(SAMPLE).slice(0, limit)
    files = [image["bytes"] for image in rows["image"].to_pylist()]
    options = ImageOptions(size=side)
    return rows["key"].to_pylist(), np.stack([decode_image(data, options).pixels for data in files])


def compare_precision(device: str, limit: int | None) -> str:
    """A sentence on the share of equal tokens in bfloat16 and float32, and the mean PSNR of the reconstructions."""
    tokens: list[np.ndarray] = []
    decibels: list[float] = []
    for dtype in ("bfloat16", "float32"):
        tokenizer = vqbeam.load(str(MODEL), device=device, dtype=dtype, batch_size=BATCH)
        _, images = read_sample(tokenizer.resolution, limit)
        tokens.append(tokenizer.encode(list(images)))
        decibels.append(float(psnr(images, tokenizer.decode(tokens[-1])).mean()))
    half, exact = decibels
    return (
        f"bfloat16 against float32, trained emoji model, {len(images)} images: {np.mean(tokens[0] == tokens[1]):.2%} "
        f"of the tokens equal; PSNR {half:.3f} dB against {exact:.3f} dB ({half - exact:+.3f})."
    )
