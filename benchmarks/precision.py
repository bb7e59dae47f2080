"""What bfloat16 costs: equal tokens and PSNR of the trained emoji model on its sample, against float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.emoji_sample import MODEL, SAMPLE, read_sample
from models.vqgan.codec import open_codec

BATCH = 16


@dataclass(frozen=True)
class Precision:
    """`equal`: share of tokens that bfloat16 gives as float32 does. PSNR of reconstructions in dB, over all pixels."""

    pictures: int
    equal: float
    psnr_float32: float
    psnr_bfloat16: float


def measure_precision(device: str = "auto", limit: int | None = None) -> Precision | None:
    """None where the model or its sample is not there."""
    if not (MODEL / "model.safetensors").exists() or not SAMPLE.exists():
        return None
    codecs = {
        dtype: open_codec(MODEL, device=device, dtype=dtype, batch_size=BATCH) for dtype in ("float32", "bfloat16")
    }
    _, pictures = read_sample(codecs["float32"].config.resolution, limit)
    tokens: dict[str, np.ndarray] = {}
    psnr: dict[str, float] = {}
    for dtype, codec in codecs.items():
        parts = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
        codes = [codec.encode(part) for part in parts]
        pixels = np.concatenate([codec.decode(part) for part in codes])
        tokens[dtype] = np.concatenate(codes)
        error = np.square(pixels.astype(np.float64) - pictures).mean((1, 2, 3))
        psnr[dtype] = float((10 * np.log10(255.0**2 / np.maximum(error, 1e-9))).mean())
    equal = float((tokens["float32"] == tokens["bfloat16"]).mean())
    return Precision(len(pictures), equal, psnr["float32"], psnr["bfloat16"])
