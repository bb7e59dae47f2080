"""`EncodeImages` and `DecodeTokens` in a user's pipeline, on the small reference VQGAN."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

from models.vqgan.config import VQGANConfig
from tests.support.images import encoded, psnr, scene
from tests.support.paths import GOLDEN, ROOT
from tests.support.run_transform import LOCAL, outcome
from tests.support.vqgan_checkpoints import load_vqgan
from transforms import DecodeTokens, EncodeImages
from transforms.batch import to_rows
from transforms.errors import UsageError
from transforms.inference.handlers import StepHandler
from transforms.inference.images import checked_codes, packed

MODEL = str(GOLDEN / "vqgan_small")
SIDE, CODES, CODEBOOK = 64, 256, 64


def image_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"key": f"{i:03d}", "caption": f"number {i}", "image": encoded(scene(SIDE + i, SIDE + 2 * i), "PNG")}
        for i in range(count)
    ]


def code_rows(count: int) -> list[dict[str, Any]]:
    chance = np.random.default_rng(0)
    return [{"key": f"{i:03d}", "encoding": chance.integers(0, CODEBOOK, CODES).tolist()} for i in range(count)]


def test_rows_gain_the_codes_of_their_images_and_lose_the_bytes():
    rows, rejected = outcome(EncodeImages(MODEL, resize="none", batch_size=4, threads=1), image_rows(1))
    expected = load_vqgan(MODEL).encode(torch.from_numpy(np.asarray(scene())[None]))
    assert np.array_equal(rows[0].pop("encoding"), expected[0].numpy().astype(np.uint16))
    assert rows == [{"key": "000", "caption": "number 0", "original_width": 64, "original_height": 64}]
    assert rejected == []


def test_the_tokenizer_in_a_folder_of_several_models_is_found_as_the_commands_find_it(tmp_path):
    """A folder that `vqbeam convert` wrote has the tokenizer in `vqgan/`."""
    shutil.copytree(MODEL, tmp_path / "vqgan")
    rows, _ = outcome(EncodeImages(str(tmp_path), batch_size=1, threads=1), image_rows(1))
    assert rows[0]["encoding"].shape == (CODES,)
    rows, _ = outcome(DecodeTokens(str(tmp_path), batch_size=1, threads=1), code_rows(1))
    assert Image.open(io.BytesIO(rows[0]["image"])).size == (SIDE, SIDE)


def test_each_bad_row_is_rejected_alone():
    bad = [
        {"key": "b0", "image": b""},
        {"key": "b1", "image": b"<html>"},
        {"key": "b2", "image": encoded(scene(), "PNG")[:300]},
        {"key": "b3", "image": None},
        {"key": "b4"},
    ]
    good = image_rows(7)
    rows, rejected = outcome(EncodeImages(MODEL, batch_size=4, threads=1), [*bad[:2], *good, *bad[2:]])
    assert [row["key"] for row in rows] == [row["key"] for row in good]
    assert all(row["encoding"].shape == (CODES,) for row in rows)
    assert {letter["row"]["key"]: letter["error"] for letter in rejected} == {
        "b0": "empty_image",
        "b1": "not_an_image",
        "b2": "broken_image",
        "b3": "missing_image",
        "b4": "missing_image",
    }
    assert next(letter["row"] for letter in rejected if letter["row"]["key"] == "b1") == bad[1]


def test_neighbours_in_a_batch_change_nothing():
    together, _ = outcome(EncodeImages(MODEL, batch_size=4, threads=1), image_rows(6))
    alone, _ = outcome(EncodeImages(MODEL, batch_size=4, threads=1), image_rows(6)[5:])
    assert np.array_equal(alone[0]["encoding"], together[5]["encoding"])


def test_the_image_column_can_be_chosen_and_kept():
    row = {"key": "a", "jpg": {"bytes": encoded(scene(), "JPEG"), "path": None}, "original_width": 4000}
    rows, _ = outcome(EncodeImages(MODEL, image_column="jpg", keep_image=True, batch_size=1, threads=1), [row])
    assert rows[0]["jpg"] == row["jpg"]
    assert (rows[0]["original_width"], rows[0]["original_height"]) == (4000, 64)


def test_filtered_rows_are_neither_kept_nor_rejected_and_are_counted():
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as p:
        small, large = {"image": encoded(scene(20, 20), "PNG")}, {"image": encoded(scene(90, 90), "PNG")}
        encoding = p | beam.Create([small, large]) | EncodeImages(MODEL, batch_size=2, threads=1, min_image_size=64)
        assert_that(encoding.rows | beam.Map(lambda row: row["original_width"]), equal_to([90]), label="rows")
        assert_that(encoding.rejected, equal_to([]), label="rejected")
    counters = p.result.metrics().query(beam.metrics.MetricsFilter().with_name("rows_filtered"))["counters"]
    assert [counter.committed for counter in counters] == [1]


def test_codes_become_images_again():
    rows, rejected = outcome(DecodeTokens(MODEL, batch_size=4, threads=1), code_rows(5))
    expected = load_vqgan(MODEL).decode(torch.from_numpy(np.array([row["encoding"] for row in code_rows(5)])))
    for row, pixels in zip(rows, expected.numpy(), strict=True):
        assert row.keys() == {"key", "image"}
        assert psnr(np.asarray(Image.open(io.BytesIO(row["image"]))), pixels) > 55
    assert rejected == []


def test_images_come_in_the_asked_format_and_column_beside_the_codes():
    transform = DecodeTokens(
        MODEL, batch_size=1, threads=1, image_format="webp", image_column="decoded", keep_codes=True
    )
    rows, _ = outcome(transform, code_rows(1))
    assert rows[0]["encoding"] == code_rows(1)[0]["encoding"]
    assert Image.open(io.BytesIO(rows[0]["decoded"])).format == "WEBP"


def test_codes_of_any_integer_type_are_read():
    types = [np.uint8, np.int16, np.uint16, np.int64, np.uint64]
    rows = [{"key": np.dtype(dtype).name, "encoding": np.arange(CODES, dtype=dtype) % CODEBOOK} for dtype in types]
    images, rejected = outcome(DecodeTokens(MODEL, batch_size=5, threads=1), rows)
    assert len({row["image"] for row in images}) == 1
    assert (len(images), rejected) == (5, [])


def test_codes_that_do_not_fit_the_model_are_rejected():
    bad = [
        ({}, "missing_codes"),
        ({"encoding": None}, "missing_codes"),
        ({"encoding": [1] * 255 + [None]}, "missing_codes"),
        ({"encoding": []}, "wrong_code_count"),
        ({"encoding": [1] * 255}, "wrong_code_count"),
        ({"encoding": [1] * 255 + [CODEBOOK]}, "code_out_of_range"),
        ({"encoding": [-1] + [1] * 255}, "code_out_of_range"),
        ({"encoding": np.full(CODES, 2**63, np.uint64)}, "code_out_of_range"),
    ]
    rows = [{"key": f"bad {i}", **row} for i, (row, _) in enumerate(bad)]
    images, rejected = outcome(DecodeTokens(MODEL, batch_size=2, threads=1), [*rows, *code_rows(1)])
    assert [row["key"] for row in images] == ["000"]
    assert {letter["row"]["key"]: letter["error"] for letter in rejected} == {
        f"bad {i}": code for i, (_, code) in enumerate(bad)
    }


def test_encoding_feeds_decoding_in_one_pipeline():
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as p:
        encoding = p | beam.Create(image_rows(3)) | EncodeImages(MODEL, batch_size=2, threads=1)
        decoding = encoding.rows | DecodeTokens(MODEL, batch_size=2, threads=1)
        sizes = decoding.rows | beam.Map(lambda row: Image.open(io.BytesIO(row["image"])).size)
        assert_that(sizes, equal_to([(SIDE, SIDE)] * 3))


def test_rows_of_beams_parquet_reader_are_taken(tmp_path):
    """As the docstring of `EncodeImages` shows it, with images stored the way Hugging Face datasets stores them."""
    cells = [{"bytes": row["image"], "path": None} for row in image_rows(3)]
    table = pa.table({"key": ["a", "b", "c"], "image": cells, "caption": [None, "x", "y"], "width": [1, 2, 3]})
    pq.write_table(table, tmp_path / "photos.parquet")
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as p:
        read = p | beam.io.ReadFromParquet(str(tmp_path / "*.parquet"))
        encoding = read | EncodeImages(MODEL, batch_size=2, threads=1)
        rows = encoding.rows | beam.Map(lambda row: (row["key"], row["caption"], row["width"], len(row["encoding"])))
        assert_that(rows, equal_to([("a", None, 1, CODES), ("b", "x", 2, CODES), ("c", "y", 3, CODES)]))


class CountingStep:
    """Adds nothing; counts its setups and notes the sizes of its batches."""

    setups: list[int] = []  # noqa: RUF012 - shared by the copies that Beam unpickles in this process
    sizes: list[int] = []  # noqa: RUF012 - likewise
    batch_size = 4

    def setup(self) -> None:
        self.setups.append(1)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.sizes.append(batch.num_rows)
        return batch.rename_columns(["given"])


COUNTING = StepHandler(
    CountingStep, CountingStep.batch_size, partial(packed, "taken"), lambda batch, _: to_rows(batch["given"]), "given"
)


def test_a_process_loads_its_model_once_for_all_threads_and_batches_are_full():
    CountingStep.setups.clear()
    CountingStep.sizes.clear()
    threads = PipelineOptions([*LOCAL, "--direct_running_mode=multi_threading", "--direct_num_workers=2"])
    with beam.Pipeline(options=threads) as p:
        elements = [({"key": i}, np.full(3, i, np.int32)) for i in range(40)]
        handled = p | beam.Create(elements) | RunInference(COUNTING)
        assert_that(handled | beam.MapTuple(lambda row, array: row["key"] - array[0]), equal_to([0] * 40))
    assert CountingStep.setups == [1]
    assert set(CountingStep.sizes[:-2]) == {4}


def test_no_resource_hints_break_fusion():
    assert COUNTING.get_resource_hints() == {}
    assert COUNTING.get_num_bytes([({}, np.zeros(10, np.uint8)), ({}, np.zeros(5, np.int32))]) == 30


@pytest.mark.parametrize(
    "make",
    [
        lambda: EncodeImages(MODEL, batch_size=0),
        lambda: EncodeImages(MODEL, resize="stretch"),
        lambda: EncodeImages(MODEL, max_image_bytes=0),
        lambda: DecodeTokens(MODEL, image_format="tga"),
    ],
)
def test_meaningless_options_are_refused_when_the_pipeline_is_built(make):
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("cell", [[0.5] * CODES, [[1] * 16] * 16, [[1], [2, 3]], "12 7 9"])
def test_a_codes_column_of_another_type_is_the_users_mistake(cell):
    with pytest.raises(UsageError, match="column 'encoding' holds"):
        checked_codes({"encoding": cell}, "encoding", VQGANConfig().spec(name="f16"))


def test_paths_in_place_of_bytes_stop_the_pipeline_with_advice():
    with pytest.raises(UsageError, match="column 'image' holds str, not bytes; name another with image_column="):
        outcome(EncodeImages(MODEL), [{"image": "photos/1.jpg"}])


def test_importing_transforms_does_not_import_torch():
    modules = "transforms, transforms.images, transforms.outputs.image_files, transforms.ledger.verify"
    check = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
