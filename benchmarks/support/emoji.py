"""The embedded emoji model on its sample: the images, and what bfloat16 costs beside float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.support.machine import ROOT
from models.vqgan.checkpoint import open_checkpoint
from transforms.images import ImageOptions, decode_image
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest

MODEL = ROOT / "models" / "emoji"
SAMPLE = ROOT / "examples" / "emoji" / "sample" / "emoji-00000.tar"
PROMPTS = ROOT / "examples" / "emoji" / "prompts.txt"
BATCH = 16


def read_sample(side: int, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """Keys and images, uint8 [N, side, side, 3], of the first `limit` rows."""
    plan = plan_sources(InputRequest(patterns=(str(SAMPLE),)), rows_per_shard=1 << 30)
    options = ImageOptions(size=side)
    keys: list[str] = []
    pixels: list[np.ndarray] = []
    for batch in read_slices([piece.slice for piece in plan.pieces], plan.schema):
        keys += batch.column("key").to_pylist()
        pixels += [decode_image(data, options).pixels for data in batch.column("image").to_pylist()]
    return keys[:limit], np.stack(pixels[:limit])


@dataclass(frozen=True)
class Precision:
    """`equal`: the share of tokens that bfloat16 gives as float32 does. PSNR of reconstructions in dB, over all
    pixels."""

    images: int
    equal: float
    psnr_float32: float
    psnr_bfloat16: float


def measure_precision(device: str = "auto", limit: int | None = None) -> Precision:
    codecs = {
        dtype: open_checkpoint(MODEL).load(device=device, dtype=dtype, batch_size=BATCH)
        for dtype in ("float32", "bfloat16")
    }
    _, images = read_sample(codecs["float32"].spec.resolution, limit)
    tokens: dict[str, np.ndarray] = {}
    psnr: dict[str, float] = {}
    for dtype, codec in codecs.items():
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        codes = [codec.encode(part) for part in parts]
        pixels = np.concatenate([codec.decode(part) for part in codes])
        tokens[dtype] = np.concatenate(codes)
        error = np.square(pixels.astype(np.float64) - images).mean((1, 2, 3))
        psnr[dtype] = float((10 * np.log10(255.0**2 / np.maximum(error, 1e-9))).mean())
    equal = float((tokens["float32"] == tokens["bfloat16"]).mean())
    return Precision(len(images), equal, psnr["float32"], psnr["bfloat16"])
