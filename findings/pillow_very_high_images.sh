#!/usr/bin/env bash
# Pillow resamples an image along its rows first and then along its columns, but one that is more than a hundred times as high as wide
# the other way round if it gets lower. Values in between are rounded to 8 bits and cut to 0..255 where LANCZOS overshoots, so the order
# shows: one more row of pixels at the bottom, far from what is looked at, moves values by tens of levels. Whoever computes Pillow's
# resize again (for speed, on a GPU, in another language) and takes the order for given differs on strips such as scrolled pages.
# Seen, Pillow 12.3.0, numpy 2.3.5, Python 3.11, Linux x86-64: the upper fifth of a resized image 3 wide and so many high, against 300 high
#   299 0.0 % of values differ, at most by 0
#   300 0.0 % of values differ, at most by 0
#   301 79.6 % of values differ, at most by 47
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pillow==12.3.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON' | tee "$work/seen"
import numpy as np
from PIL import Image

noise = np.random.default_rng(1).integers(0, 2, (301, 3, 3)).astype(np.uint8) * 255


def upper_fifth(high: int) -> np.ndarray:
    """Of 149 new rows from the same 298 old ones, whatever the height."""
    box = (0, 0, 3, 298)
    made = Image.fromarray(noise[:high]).resize((64, 149), Image.Resampling.LANCZOS, box=box)
    return np.asarray(made)[:30].astype(int)


expected = upper_fifth(300)
for high in (299, 300, 301):
    apart = abs(upper_fifth(high) - expected)
    print(high, f"{100 * (apart > 0).mean():.1f} % of values differ, at most by {apart.max()}")
PYTHON
diff "$work/seen" - <<'SEEN'
299 0.0 % of values differ, at most by 0
300 0.0 % of values differ, at most by 0
301 79.6 % of values differ, at most by 47
SEEN
