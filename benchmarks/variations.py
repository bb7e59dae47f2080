"""How much of an image `vqbeam vary` changes, by method and strength: the table of docs/vary.md.

python -m benchmarks.variations            the emoji model and its sample of 200 images, under a minute
python -m benchmarks.variations --quick    eight images, some seconds
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from benchmarks.support import machine
from benchmarks.support.emoji import MODEL, read_sample
from transforms.batch import CODES, ENCODING, PIXELS, ROW, SAMPLE, fixed_lists, to_images, to_rows
from transforms.work.step import ModelSettings
from transforms.work.vary import CodeNoise, LatentNoise, Variation, VaryStep

STRENGTHS = (0.1, 0.25, 0.5, 1.0)
METHODS: tuple[tuple[str, Callable[[float], Variation], str], ...] = (
    ("`latent`, images", LatentNoise, PIXELS),
    ("`latent`, tokens", LatentNoise, CODES),
    ("`codes`", CodeNoise, PIXELS),
)
BATCH = 50
QUICK_IMAGES = 8


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variations", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="eight images")
    args = parser.parse_args(argv)
    batch = QUICK_IMAGES if args.quick else BATCH
    model = ModelSettings(str(MODEL), "", "torch", "cpu", "float32", batch, torch.get_num_threads())
    tokenizer = model.open()
    keys, images = read_sample(tokenizer.spec.resolution, QUICK_IMAGES if args.quick else None)

    def varied(variation: Variation, payload: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes, int [N, T], and pixels, uint8 [N, H, W, 3], of `vqbeam vary` with seed 0, one image a row."""
        step = VaryStep(model, variation)
        step.tokenizer = tokenizer
        numbers = np.arange(len(keys))
        columns = {
            payload: fixed_lists(rows),
            "key": pa.array(keys),
            "seed": pa.array(0 * numbers),
            ROW: pa.array(numbers),
            SAMPLE: pa.array(0 * numbers),
        }
        table = pa.record_batch(columns)
        done = [step(table.slice(start, batch)) for start in range(0, len(keys), batch)]
        codes = np.concatenate([to_rows(part.column(ENCODING)) for part in done])
        return codes.astype(np.int32), np.concatenate([to_images(part.column(PIXELS)) for part in done])

    codes, pixels = varied(CodeNoise(0.0), PIXELS, images)
    print(f"{machine.describe()}\n")
    print(f"{len(keys)} images: share of codes that change, PSNR of the images beside the reconstructions\n")
    print(f"| | {' | '.join(f'{strength:g}' for strength in STRENGTHS)} |")
    print("|---" * (len(STRENGTHS) + 1) + "|")
    for name, method, payload in METHODS:
        cells = []
        for strength in STRENGTHS:
            others, repainted = varied(method(strength), payload, codes if payload == CODES else images)
            error = np.square(repainted.astype(np.float64) - pixels).mean()
            cells.append(f"{100 * np.mean(others != codes):.0f} %, {10 * np.log10(255**2 / max(error, 1e-9)):.1f} dB")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
