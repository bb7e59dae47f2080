"""What applying colour profiles costs: images/s of one decoding thread, by profile.

python -m benchmarks.colour_profiles            JPEGs of 400 to 500 pixels a side for a model of 256, half a minute
python -m benchmarks.colour_profiles --quick    two images, a second: its figures mean nothing
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.support import machine
from benchmarks.support.icc_profiles import DISPLAY_P3, SRGB
from benchmarks.support.photographs import photographs
from benchmarks.support.rounds import ratio
from transforms.image_options import ImageLimits, ImageOptions
from transforms.images import decode_image

SIDES, SIZE = (400, 500), 256
PROFILES = {"none": None, "sRGB": SRGB, "Display P3": DISPLAY_P3}
WAYS: dict[str, ImageLimits] = {"resized to 256 (encode, vary)": ImageOptions(size=SIZE), "whole (rank)": ImageLimits()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.colour_profiles", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images, one round")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(argv)
    originals = [data for _, data in photographs(2 if args.quick else 48, SIDES)]
    images = {name: [_tagged(data, profile) for data in originals] for name, profile in PROFILES.items()}
    rates: dict[tuple[str, str], list[float]] = {(way, name): [] for way in WAYS for name in PROFILES}
    for _ in range(1 if args.quick else args.rounds):
        for (way, name), seen in rates.items():
            seen.append(_rate(images[name], WAYS[way]))
    print(f"{machine.describe()}\n")
    print("| decoded | profile | images/s | beside no profile |")
    print("|---|---|---|---|")
    for (way, name), seen in rates.items():
        print(f"| {way} | {name} | {statistics.median(seen):.0f} | {ratio(seen, rates[way, 'none']):.2f} |")
    return 0


def _tagged(data: bytes, profile: bytes | None) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=90, icc_profile=profile)
    return buffer.getvalue()


def _rate(images: Sequence[bytes], options: ImageLimits) -> float:
    start = time.process_time()
    pixels = [decode_image(data, options).pixels for data in images]
    assert np.concatenate([image.ravel() for image in pixels]).any()
    return len(images) / (time.process_time() - start)


if __name__ == "__main__":
    sys.exit(main())
