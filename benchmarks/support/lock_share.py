"""How long a JPEG of `ImagePath` may hold Python's lock, which the threads of a process share.

Taken for free of it are Pillow's decoder and the machine code that resizes; the rest has calls that let it go, too.
`python -m benchmarks.support.lock_share TAR SIDE IMAGES ROUNDS` prints the median round: [in all, with it].
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from benchmarks.support.image_path_alone import ImagePath, wait_for_machine_code
from pipelines.process import reuse_freed_memory
from transforms import compiled_resampling


@contextmanager
def without_the_lock() -> Iterator[Callable[[], float]]:
    """-> the seconds that this process's threads have spent in Pillow's decoders and in machine code for resizing."""
    spent = [0.0]
    decoder, resample = Image._getdecoder, compiled_resampling._resample

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*given)
            finally:
                spent[0] += time.thread_time() - began

        return call

    class Timed:
        def __init__(self, *given: Any) -> None:
            self._decoder = decoder(*given)
            self.decode = timed(self._decoder.decode)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

    Image._getdecoder, compiled_resampling._resample = Timed, timed(resample)  # type: ignore[assignment]
    try:
        yield lambda: spent[0]
    finally:
        Image._getdecoder, compiled_resampling._resample = decoder, resample


def seconds_with_the_lock(path: ImagePath, images: int) -> tuple[float, float]:
    """Of processor time, an image: in all, and with the lock at most."""
    with without_the_lock() as spent:
        path.run(1)
        before = spent()
        whole = path.run(1)["processor"]
        return whole, whole - (spent() - before) / images


if __name__ == "__main__":
    reuse_freed_memory()  # as workers do
    images, rounds = map(int, sys.argv[3:])
    if rounds > 1:
        wait_for_machine_code()
    one = ImagePath(sys.argv[1], int(sys.argv[2]))
    print(json.dumps(sorted(seconds_with_the_lock(one, images) for _ in range(rounds))[rounds // 2]))
