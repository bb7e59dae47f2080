"""The table of measures and its totals: exact rows, small images, empty shards, no figure that JSON lacks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.batch import ENCODING, KEY, PIXELS, RECONSTRUCTION, code_list, fixed_lists
from transforms.ledger.folder import EVALUATION, OutputFolder
from transforms.ledger.sums import Totals
from transforms.ledger.types import ShardCounts
from transforms.outputs.evaluation import Evaluated, EvaluationSink, as_text, model_columns, summarise
from transforms.outputs.layout import SinkTarget

CODEBOOK = 8
MODEL = {"model": "fake", "codebook_size": CODEBOOK}


def write(output: Path, shard: int, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """A shard of images and their reconstructions, the codes of row n all n."""
    (output / "data").mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(KEY, pa.string()), *model_columns("", code_list(CODEBOOK, 2), 0)])
    path = output / "data" / f"{shard:05d}.parquet"
    with ThreadPoolExecutor(2) as pool:
        target = SinkTarget(path, schema, pool, pool, OutputFolder(str(output)), f"{shard:05d}")
        sink = EvaluationSink(target, [Evaluated("", CODEBOOK)])
        if pairs:
            originals, made = (np.stack(side) for side in zip(*pairs, strict=True))
            codes = np.repeat(np.arange(len(pairs), dtype=np.uint16)[:, None], 2, 1)
            columns = {PIXELS: originals, RECONSTRUCTION: made, ENCODING: codes}
            keys = pa.array([f"k{row}" for row in range(len(pairs))])
            sink.write(pa.record_batch({KEY: keys, **{name: fixed_lists(rows) for name, rows in columns.items()}}))
        sink.finish(ShardCounts(rows_read=len(pairs), rows_written=len(pairs)))


def totals(output: Path, shards: int = 1) -> dict[str, Any]:
    told = summarise(str(output), shards, [MODEL], Totals(rows_read=3, rows_written=3), None)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads((output / EVALUATION).read_text(), parse_constant=refuse) == told
    (model,) = told["models"]
    return model | {"text": as_text(told)}


def image(side: int, level: int) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def test_exact_rows_are_counted_apart(tmp_path: Path) -> None:
    write(tmp_path, 0, [(image(12, 7), image(12, 7)), (image(12, 0), image(12, 255)), (image(12, 0), image(12, 51))])
    found = totals(tmp_path)
    rows = pq.read_table(tmp_path / "data" / "00000.parquet").to_pylist()
    assert [row["psnr"] for row in rows] == [None, 0.0, pytest.approx(20 * np.log10(5))]
    assert rows[0]["ssim"] == 1.0
    assert (found["exact_rows"], found["psnr"]) == (1, pytest.approx(10 * np.log10(5), abs=1e-6))
    assert "exact" in found["text"]


def test_nothing_but_exact_rows_have_no_noise(tmp_path: Path) -> None:
    write(tmp_path, 0, [(image(12, 7), image(12, 7))])
    found = totals(tmp_path)
    assert (found["exact_rows"], found["psnr"], found["ssim"], found["perplexity"]) == (1, None, 1.0, 1.0)


def test_images_below_eleven_pixels_have_no_similarity(tmp_path: Path) -> None:
    write(tmp_path, 0, [(image(10, 0), image(10, 51))])
    found = totals(tmp_path)
    assert (found["ssim"], found["rows_without_ssim"]) == (None, 1)
    assert "too small" in found["text"]


def test_shards_are_added_up_and_may_be_empty(tmp_path: Path) -> None:
    pairs = [(image(12, 9 * row), image(12, 9 * row + 3 * row + 1)) for row in range(5)]
    write(tmp_path / "one", 0, pairs)
    for shard, part in enumerate((pairs[:2], [], pairs[2:])):
        write(tmp_path / "more", shard, part)
    one, more = totals(tmp_path / "one"), totals(tmp_path / "more", 3)
    assert one["codes_used"] == 5
    assert one["perplexity"] == pytest.approx(5)
    for name in ("psnr", "ssim", "exact_rows"):
        assert one[name] == more[name]


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, 0, [(image(12, 7), image(12, 9))])
    model = summarise(str(tmp_path), 1, [MODEL], Totals(), None)["models"][0]
    models = [
        model | {"model": name, "model_source": f"/{place}/{name}"} for name, place in (("vq", 1), ("vq", 2), ("x", 3))
    ]
    assert as_text({"models": models}).splitlines()[0].split() == ["/1/vq", "/2/vq", "x"]
