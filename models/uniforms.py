"""The random numbers of generation: one uniform for each seed, key, sample and step, the same on every machine.

Drawn on the host, before the model runs; `models/bart/sampling.py` turns them into codes. The scheme is versioned:
a change of a single byte must count `UNIFORMS_VERSION` up, because the same seed then gives other images.
"""

from __future__ import annotations

import hashlib

import numpy as np

UNIFORMS_VERSION = 1
WORDS = 4  # of 64 bits that Philox returns for one counter; the first is used


def uniforms(seed: int, key: str, sample: int, steps: int, *, stream: str = "codes") -> np.ndarray:
    """float64 [steps] in [0, 1): the numbers of one image.

    `key` names the row, `sample` counts the images of a row; `stream` separates uses that share all three. Number i
    depends on these and i only: asking for more steps changes none of the first.
    """
    fields = (str(UNIFORMS_VERSION), stream, str(int(seed)), key, str(int(sample)))
    digest = hashlib.blake2b(digest_size=16, person=b"vqbeam uniforms")
    for field in fields:
        data = field.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)  # with its length: "a", "bc" is not "ab", "c"
    # NumPy counts up before it draws: number i comes from counter i + 1 (Salmon et al., 2011, Philox 4x64, 10 rounds).
    philox = np.random.Philox(key=int.from_bytes(digest.digest(), "little"))
    words = philox.random_raw(WORDS * steps)[::WORDS]
    return (words >> np.uint64(11)) * 2.0**-53
