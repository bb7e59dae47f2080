"""What bfloat16 costs: equal tokens and PSNR of the trained emoji model on its sample, against float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.codec import open_codec
from transforms.images import ImageOptions, decode_image
from transforms.sources import InputRequest, plan_sources, read_slices

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "emoji"
SAMPLE = ROOT / "examples" / "emoji" / "sample"
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
    tars = sorted(SAMPLE.glob("*.tar"))
    if not (MODEL / "model.safetensors").exists() or not tars:
        return None
    codecs = {
        dtype: open_codec(MODEL, device=device, dtype=dtype, batch_size=BATCH) for dtype in ("float32", "bfloat16")
    }
    pictures = read_pictures(tars[0], codecs["float32"].config.resolution, limit)
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


def read_pictures(tar: Path, size: int, limit: int | None = None) -> np.ndarray:
    """The pictures of a tar as the model reads them, uint8 [N, size, size, 3]."""
    plan = plan_sources(InputRequest(patterns=(str(tar),)), rows_per_shard=1 << 30)
    options = ImageOptions(size=size)
    pixels = [
        decode_image(data, options).pixels
        for batch in read_slices([piece.slice for piece in plan.pieces], plan.schema)
        for data in batch.column("image").to_pylist()
    ]
    return np.stack(pixels[:limit])
