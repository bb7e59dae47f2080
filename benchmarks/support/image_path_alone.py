"""The images of a tar up to the batches of a model, in a process of its own: by the vqbeam that is found on the path.

`python image_path_alone.py TAR SIDE [warm]` reads lines of a number of decode threads each, and answers with the
seconds that an image takes from the tar's bytes to the uint8 batch, by the clock and of the processor, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from PIL import Image

from pipelines.process import reuse_freed_memory
from transforms.batch import PIXELS
from transforms.engine.prefetch import ahead
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest
from transforms.work.prepare import Pool, Pools, PrepareImages, full_batches

BATCH, READ_AHEAD = 64, 2


def fetched(uri: str) -> bytes:
    raise AssertionError(f"the tar holds all images, not {uri}")


class ImagePath:
    """What lies before the model of a worker, for the one source `tar` and a model of `side` pixels."""

    def __init__(self, tar: str, side: int) -> None:
        plan = plan_sources(InputRequest(patterns=(tar,)), rows_per_shard=1 << 30)
        self.slices, self.schema = [piece.slice for piece in plan.pieces], plan.schema
        self.decode = partial(decode_image, options=ImageOptions(side))

    def run(self, threads: int) -> dict[str, float]:
        """Seconds an image."""
        with ThreadPoolExecutor(threads) as executor:
            pools = Pools(Pool(executor), Pool(executor))
            prepare = PrepareImages(self.decode, self.schema, fetched, pools, require_caption=False)
            clock, processor, images = time.perf_counter(), time.process_time(), 0
            waiting = ahead((prepare(batch, 0) for batch in read_slices(self.slices, self.schema)), READ_AHEAD)
            for batch in full_batches((result() for result in waiting), BATCH, PIXELS):
                images += batch.num_rows
            spent = time.perf_counter() - clock, time.process_time() - processor
        return {"clock": spent[0] / images, "processor": spent[1] / images}


def wait_for_machine_code() -> None:
    """Earlier versions have none."""
    try:
        from transforms.resampling import Resampling, resize
    except ImportError:
        return
    while not resize.ready:
        resize(Image.new("RGB", (1000, 1000)), (500, 500), Resampling.LANCZOS)


if __name__ == "__main__":
    reuse_freed_memory()  # as workers do
    path = ImagePath(sys.argv[1], int(sys.argv[2]))
    if sys.argv[3:] == ["warm"]:
        wait_for_machine_code()
    for line in sys.stdin:
        print(json.dumps(path.run(int(line))), flush=True)
