"""CPU seconds that the embedded model takes for images, in a process of its own, as a worker runs it.

`python model_alone.py IMAGES` prints them. The code is what it finds in the working folder.
"""

from __future__ import annotations

import os
import sys
import time

sys.path.insert(0, os.getcwd())

import numpy as np

from models import find
from pipelines.process import cores, reuse_freed_memory

reuse_freed_memory()
checkpoint = find("emoji", "").tokenizer
size = checkpoint.spec.batch_size("cpu")
codec = checkpoint.load(device="cpu", batch_size=size, threads=cores())
side = checkpoint.spec.resolution
images = np.random.default_rng(1).integers(0, 256, (int(sys.argv[1]), side, side, 3), np.uint8)
began = time.process_time()
for start in range(0, len(images), size):
    codec.encode(images[start : start + size])
print(time.process_time() - began)
