"""The memory of an encode whose rows are views, or have grids that differ, does not grow with rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.images import encoded, scene
from tests.support.make_inputs import folder, table
from tests.support.peak_memory import peak_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only"),
]

SIDES = ((96, 96), (128, 64), (64, 128), (128, 64))
FLAGS = {  # and a size at which the pixels of 3,000 rows would take some 330 MB
    "views": "--image_size 64 --views random:9",
    "buckets": "--image_size 64 --resize bucket --buckets 192x192,256x128,128x256",
}
# The model is left out: its time grows with the pixels, and its memory with a batch. So are most codes, of which a row
# group holds 32 MiB.
IMPORTS = """
import numpy as np
from pipelines.__main__ import main
from transforms import resampling
from transforms.batch import ENCODING, PIXELS, fixed_lists, varying_lists
from transforms.work import encode

def squares(self, batch):
    return batch.drop_columns([PIXELS]).append_column(ENCODING, fixed_lists(np.zeros((len(batch), 1024), np.uint16)))

def grids(self, batch):
    return batch.drop_columns([PIXELS]).append_column(ENCODING, varying_lists(np.zeros((len(batch), 4), np.uint16)))

encode.EncodeStep.__call__, encode.EncodeGridsStep.__call__ = squares, grids
encode.PIXELS_PREPARED = 1 << 20  # else ten times the rows are too few to fill what is in flight
resampling.resize._patience = 0.0  # else only the longer job loads the compiler, which takes more than the rows

def run(name, flags):
    words = ["encode", "--input", arguments[0] + "/" + name, "--output", arguments[0] + "/out-" + name]
    words += ["--model", arguments[1], "--rows_per_shard", "10000", "--batch_size", "16", "--threads_per_worker", "1"]
    assert main([*words, "--direct_running_mode", "multi_threading", *flags.split()]) == 0

import contextlib, io
quiet = contextlib.redirect_stdout(io.StringIO())
"""


def call(rows: int, flags: str) -> str:
    return f"[quiet.__enter__(), run('{rows}', {flags!r}), quiet.__exit__(None, None, None)][1]"


@pytest.mark.parametrize("kind", FLAGS)
def test_ten_times_the_rows_take_no_more_memory(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    images = [encoded(scene(*sides), "PNG") for sides in SIDES]
    peaks = []
    for rows in (30, 300, 3000):
        image = [images[number * number // 7 % len(images)] for number in range(rows)]
        content = table({"key": [f"k{number}" for number in range(rows)], "image": image})
        folder(tmp_path / str(rows), {"a.parquet": content})
    for rows in (300, 3000):
        peaks.append(peak_of(IMPORTS, call(30, FLAGS[kind]), call(rows, FLAGS[kind]), tmp_path, tiny_model))
        (tmp_path / "out-30").rename(tmp_path / f"done-{rows}")
    assert peaks[1] < peaks[0] + (100 << 20), peaks
