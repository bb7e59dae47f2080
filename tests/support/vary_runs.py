"""Images and tokens for `vqbeam vary` with the tiny generator, and runs of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.support.images import encoded, scene
from tests.support.run_command import SMALL, Outcome, run

BROKEN = 2  # the row whose bytes are no image


def write_images(path: Path, rows: int = 6, captions: Sequence[object] | None = None) -> Path:
    """A Parquet file of images with captions and a column `n`; the image of row `BROKEN` is broken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [encoded(scene(40 + row, 40).rotate(40 * row), "PNG") for row in range(rows)]
    images[BROKEN] = b"no image"
    table = {
        "key": [f"k{row}" for row in range(rows)],
        "image": images,
        "caption": list(captions) if captions else [f"a red apple {row}" for row in range(rows)],
        "n": list(range(rows)),
    }
    pq.write_table(pa.table(table), path)
    return path


def write_tokens(source: Path, output: Path, model: Path) -> Path:
    """Encodes the images of `source`; returns the folder of tables."""
    assert run("encode", "--input", source, "--model", model, *SMALL, output=output).code == 0
    return output / "data"


def vary(model: Path, output: Path, *flags: object) -> Outcome:
    """`vqbeam vary` with `SMALL` flags."""
    return run("vary", "--model", model, *SMALL, *flags, output=output)


def pixels(outcome: Outcome) -> dict[tuple[str, int], np.ndarray]:
    """The images of the layout `files`, by key and sample."""
    assert outcome.code == 0, outcome.err
    return {
        (row["key"], row.get("sample", 0)): np.asarray(Image.open(io.BytesIO(outcome.read(row["image_path"]))))
        for row in outcome.rows()
    }
