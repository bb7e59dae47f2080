"""Resizes an image with the Pillow of another Python, such as pillow-simd, which cannot be installed beside Pillow.

`python pillow_alone.py IMAGE SIDE LEFT TOP RIGHT BOTTOM MADE` prints the seconds of the median of some calls, and
writes what came out into the .npy file MADE.
"""

import sys
import time

import numpy as np
from PIL import Image

if __name__ == "__main__":
    image = Image.open(sys.argv[1]).convert("RGB")
    side = int(sys.argv[2])
    left, top, right, bottom = (float(edge) for edge in sys.argv[3:7])
    seconds = []
    for _ in range(20):
        start = time.process_time()
        made = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, (left, top, right, bottom)))
        seconds.append(time.process_time() - start)
    np.save(sys.argv[7], made)
    print(sorted(seconds)[len(seconds) // 2])
