"""Grids that differ by row: the codes of each image alone, whatever came with it, through every command."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import transforms.work.one_shape as one_shape
import vqbeam
from models import find
from models.image_tokenizer import TokenizerOptions
from tests.support.families import CHAMELEON, DIFFUSERS, EMU3, IBQ, LFQ, LLAMAGEN, MASKGIT, SHOWO, golden
from tests.support.images import encoded, scene
from tests.support.make_inputs import folder, table
from tests.support.real_runs import kill_at_work, visible
from tests.support.run_command import SMALL, Outcome, encode, run
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.target_sizes import TargetSizes

SIDES = ((40, 40), (64, 32), (30, 60), (41, 33), (90, 20))
FLAGS = {
    "bucket": ("--resize", "bucket", "--buckets", "16x16,24x12,12x24"),
    "area": ("--resize", "area:16"),
    "none": ("--resize", "none", "--any_size"),
}
SIZES = {
    "bucket": TargetSizes(2, ((16, 16), (24, 12), (12, 24))),
    "area": TargetSizes(2, area=16),
    "none": TargetSizes(2),
}
ROWS, SHARDS = 12, 3
KINDS = pytest.mark.parametrize("kind", FLAGS)


def side_of(number: int) -> int:
    return (number * number + number // 3) % len(SIDES)


def png(number: int) -> bytes:
    width, height = SIDES[side_of(number)]
    return encoded(scene(width, height).point(lambda value: (value + 13 * number) % 256), "PNG")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 rows in three files; every ninth holds no image."""
    root = tmp_path_factory.mktemp("data")
    for shard in range(SHARDS):
        numbers = range(shard * ROWS, shard * ROWS + ROWS)
        images = [b"no image" if number % 9 == 8 else png(number) for number in numbers]
        folder(root, {f"{shard}.parquet": table({"key": [f"k{number}" for number in numbers], "image": images})})
    return root


def encode_small(source: Path, output: Path, model: Path, *flags: object) -> Outcome:
    return encode(source, output, model, "--rows_per_shard", ROWS, *flags)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> dict[str, Outcome]:
    root = tmp_path_factory.mktemp("grids")
    return {kind: encode_small(source, root / kind, tiny_model, *flags) for kind, flags in FLAGS.items()}


@KINDS
def test_each_row_has_the_codes_of_its_image_alone(kind: str, made: dict[str, Outcome], tiny_model: Path) -> None:
    outcome = made[kind]
    assert outcome.code == 0, outcome.err
    outcome.check_nothing_lost()
    loaded = find(str(tiny_model), "").tokenizer.load(device="cpu", batch_size=4, threads=1)
    options = ImageOptions(16, resize=kind, by_row=SIZES[kind])
    rows = outcome.rows()
    expected = [number for number in range(36) if number % 9 != 8]
    if kind == "none":  # sides of 41 and 33 pixels are no multiples of 2
        odd = [number for number in expected if SIDES[side_of(number)] == (41, 33)]
        assert outcome.by_reason("errors") == {"not_an_image": 4, "wrong_size": len(odd)}
        assert "41 x 33 pixels; any size takes sides that are multiples of 2" in {
            row["message"] for row in outcome.rejected()
        }
        expected = [number for number in expected if number not in odd]
    assert [row["key"] for row in rows] == [f"k{number}" for number in expected]
    for number, row in zip(expected, rows, strict=True):
        pixels = decode_image(png(number), options).pixels
        assert (row["grid_h"], row["grid_w"]) == (pixels.shape[0] // 2, pixels.shape[1] // 2)
        np.testing.assert_array_equal(row["encoding"], loaded.encode(pixels[None])[0])
    assert len({(row["grid_h"], row["grid_w"]) for row in rows}) > 2


def same(rows: list[dict[str, Any]], others: list[dict[str, Any]], *, exact: bool) -> bool:
    """Codes at other batch sizes may differ where two are as near."""
    codes, expected = (np.concatenate([row.pop("encoding") for row in some]) for some in (rows, [*map(dict, others)]))
    wanted = [{name: value for name, value in row.items() if name != "encoding"} for row in others]
    return rows == wanted and (codes == expected).mean() >= (1 if exact else 0.99)


@KINDS
def test_shards_workers_and_batches_change_no_row(
    kind: str, made: dict[str, Outcome], source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    wanted = made[kind].rows()
    for number, flags in enumerate(
        (
            ("--rows_per_shard", "5"),
            ("--workers", "2", "--direct_running_mode", "multi_threading"),
            ("--batch_size", "3"),
            ("--batch_size", "64"),
        )
    ):
        again = encode_small(source, tmp_path / str(number), tiny_model, *FLAGS[kind], *flags)
        assert again.code == 0, again.err
        assert same(again.rows(), wanted, exact="--batch_size" not in flags)


@KINDS
def test_a_resumed_run_gives_the_same_bytes_and_other_sizes_are_another_job(
    kind: str, made: dict[str, Outcome], source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    output = Path(shutil.copytree(made[kind].output, tmp_path / "out"))
    for name in ("_vqbeam/stats/00001.json", "data/00001.parquet", "_SUCCESS"):
        (output / name).unlink()
    assert encode_small(source, output, tiny_model, *FLAGS[kind]).code == 0
    stored = Path(made[kind].output, "data/00001.parquet")
    assert (output / "data/00001.parquet").read_bytes() == stored.read_bytes()
    others = {
        "bucket": (*FLAGS["bucket"][:3], "16x16,24x12"),
        "area": ("--resize", "area:20"),
        "none": ("--resize", "none"),
    }
    refused = encode_small(source, output, tiny_model, *others[kind])
    assert (refused.code, "  grids" in refused.err) == (2, True), refused.err


def test_tables_say_their_columns_and_jobs_without_keep_theirs(
    made: dict, source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    (first, *_) = Path(made["bucket"].output, "data").iterdir()
    schema = pq.read_schema(first)
    assert schema.field("encoding").type == pa.list_(pa.uint16())
    assert (schema.field("grid_h").type, schema.field("grid_w").type) == (pa.int32(), pa.int32())
    assert json.loads(schema.metadata[b"vqbeam"])["grids"] == {
        "kind": "bucket",
        "buckets": [[16, 16], [24, 12], [12, 24]],
    }
    plain = encode_small(source, tmp_path / "out", tiny_model)
    fixed = pq.read_schema(Path(plain.output, "data/00000.parquet"))
    assert fixed.field("encoding").type == pa.list_(pa.uint16(), 64)
    assert "grid_h" not in fixed.names
    assert "grids" not in plain.read("_vqbeam/plan.json").decode()


@KINDS
@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_decode_gives_each_image_its_own_size(
    kind: str, layout: str, made: dict, tmp_path: Path, tiny_model: Path
) -> None:
    tokens = made[kind]
    words = ("decode", "--input", f"{tokens.output}/data/*.parquet", "--image_layout", layout, *SMALL)
    images = run(*words, "--columns", "original_width", "--contact_sheet", output=tmp_path / "images")
    assert images.code == 0, images.err
    images.check_nothing_lost()
    assert images.total("rows_written") == len(tokens.rows())
    if layout == "files":
        loaded = find(str(tiny_model), "").tokenizer.load(device="cpu", batch_size=4, threads=1)
        for row, written in zip(tokens.rows(), images.rows(), strict=True):
            assert (written["key"], written["grid_w"]) == (row["key"], row["grid_w"])
            expected = loaded.decode_grid(np.array([row["encoding"]]), (row["grid_h"], row["grid_w"]))[0]
            np.testing.assert_array_equal(Image.open(Path(images.output, written["image_path"])), expected)


def test_decode_reads_both_forms_together(made: dict, source: Path, tmp_path: Path, tiny_model: Path) -> None:
    """As far as the tables have their grids: rows without have the model's."""
    rows = made["bucket"].rows()[:3]
    square = {"key": "square", "encoding": [1] * 64, "grid_h": None, "grid_w": None}
    wrong = {"key": "wrong", "encoding": [1] * 20, "grid_h": 3, "grid_w": 4}
    mixed = pa.Table.from_pylist([*({k: row[k] for k in square} for row in rows), square, wrong])
    pq.write_table(mixed, tmp_path / "mixed.parquet")
    images = run(
        "decode", "--input", tmp_path / "mixed.parquet", "--model", tiny_model, *SMALL, output=tmp_path / "out"
    )
    assert images.code == 0, images.err
    sizes = {row["key"]: Image.open(Path(images.output, row["image_path"])).size for row in images.rows()}
    assert sizes["square"] == (16, 16)
    assert [row["message"] for row in images.rejected()] == ["20 codes; a grid of (3, 4) has 12"]


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (LLAMAGEN, ("--image_size", "32")),
        (CHAMELEON, ()),
        (DIFFUSERS, ("--image_size", "40", "--pixel_range", "0,1")),
        (SHOWO, ("--image_size", "40")),
        (IBQ, ()),
        (LFQ, ()),
        (MASKGIT, ("--image_size", "40")),
        (EMU3, ("--image_size", "32")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_families_take_other_sizes_with_the_codes_of_the_originals(
    model: Path, asked: tuple[str, ...], tmp_path: Path
) -> None:
    images = golden(model, "inputs_wide")
    if images.dtype != np.uint8:
        pytest.skip("its wide set is no images")
    files = {f"{number}.png": encoded(Image.fromarray(pixels), "PNG") for number, pixels in enumerate(images)}
    folder(tmp_path / "in", files)
    tokens = encode(tmp_path / "in", tmp_path / "tokens", model, *asked, "--resize", "none", "--any_size")
    assert tokens.code == 0, tokens.err
    expected = golden(model, "expected_codes_wide")
    np.testing.assert_array_equal([row["encoding"] for row in tokens.rows()], expected.reshape(len(expected), -1))
    assert [(row["grid_h"], row["grid_w"]) for row in tokens.rows()] == [expected.shape[1:]] * len(expected)
    decoded = run("decode", "--input", f"{tokens.output}/data/*.parquet", *SMALL, output=tmp_path / "images")
    assert decoded.code == 0, decoded.err
    low = 0.0 if "0,1" in asked or model == MASKGIT else -1.0
    levels = ((golden(model, "expected_recon_wide") - low) * (255 / (1 - low))).clip(0, 255)
    for row, wanted in zip(decoded.rows(), levels, strict=True):
        found = np.asarray(Image.open(Path(decoded.output, row["image_path"]))).astype(float)
        assert np.abs(found - wanted).max() < 0.6


def test_views_keep_the_grid_of_their_image(source: Path, made: dict, tmp_path: Path, tiny_model: Path) -> None:
    flipped = encode_small(source, tmp_path / "out", tiny_model, *FLAGS["bucket"], "--views", "flip")
    assert flipped.code == 0, flipped.err
    plain = {row["key"]: row for row in made["bucket"].rows()}
    views = Counter(row["view"] for row in flipped.rows())
    assert views == {0: len(plain), 1: len(plain)}
    for row in flipped.rows():
        one = plain[row["key"]]
        assert (row["grid_h"], row["grid_w"]) == (one["grid_h"], one["grid_w"])
        assert row["view"] or row["encoding"] == one["encoding"]
    refused = encode_small(source, tmp_path / "no", tiny_model, *FLAGS["area"], "--views", "ten_crop")
    refused.check_refused("--views: ten_crop gives squares of the model's size; grids that differ by row go with flip")


def test_views_of_grids_are_the_same_for_other_shards_and_after_a_stop(
    source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    flags = (*FLAGS["area"], "--views", "flip")
    workers = ("--workers", "2", "--direct_running_mode", "multi_threading")
    once = encode_small(source, tmp_path / "once", tiny_model, *flags)
    assert once.code == 0, once.err
    wanted = once.rows()
    other = encode(source, tmp_path / "other", tiny_model, "--rows_per_shard", 5, *flags, *workers)
    assert other.rows() == wanted
    larger = encode_small(source, tmp_path / "larger", tiny_model, *flags, "--batch_size", "9")
    assert same(larger.rows(), wanted, exact=False)
    table = tmp_path / "once" / "data" / "00001.parquet"
    before = table.read_bytes()
    for path in (table, tmp_path / "once" / "_vqbeam" / "stats" / "00001.json"):
        path.unlink()
    again = encode_small(source, tmp_path / "once", tiny_model, *flags, *workers)
    assert again.code == 0, again.err
    assert table.read_bytes() == before


def test_training_reads_rows_of_any_length(made: dict) -> None:
    rows = list(vqbeam.TokenDataset(made["bucket"].output, columns=["grid_h", "grid_w"]))
    assert [len(row["encoding"]) for row in rows] == [row["grid_h"] * row["grid_w"] for row in rows]


def test_what_takes_one_grid_refuses_these_tables(made: dict, tmp_path: Path) -> None:
    tables = f"{made['bucket'].output}/data/*.parquet"
    run("export", "--input", tables, output=tmp_path / "a").check_refused(
        "has grids that differ by row (grid_h 6 to 12)"
    )
    words = ("vary", "--input", tables, "--method", "codes", *SMALL)
    run(*words, output=tmp_path / "b").check_refused("has grids that differ by row, which only decode takes")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--resize", "bucket"), "--resize bucket and --buckets WxH,... go together"),
        (("--buckets", "16x16"), "--resize bucket and --buckets WxH,... go together"),
        (("--resize", "bucket", "--buckets", "16x17"), "--buckets: 16x17 is no size of this model"),
        (("--resize", "bucket", "--buckets", "16"), "'16': expected WIDTHxHEIGHT,... such as 256x256,320x192"),
        (("--resize", "area"), "'area': expected auto, center_crop"),
        (("--resize", "area:0"), "bucket or area:N, such as area:512 for 512 x 512 pixels"),
        (("--resize", "area:1"), "area:1 is less than a code, 2 x 2 pixels"),
        (("--resize", "area:262144"), "at most 2,048; for 262,144 pixels give area:512"),
        (("--any_size",), "--any_size goes with --resize none"),
        ((*FLAGS["area"], "--backend", "vqgan-jax"), "--resize area:16: vqgan-jax takes images of its own size only"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: tuple[str, ...], told: str, source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    encode(source, tmp_path / "out", tiny_model, *flags).check_refused(told)


@pytest.mark.parametrize("held", [10, 1 << 30])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_rows_come_out_in_order_and_few_wait(size: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare shape holds the others up for a bounded number of rows."""
    monkeypatch.setattr(one_shape, "BYTES_HELD", held)
    shapes = [(1, 2), *[(1, 1)] * 40, (2, 2), *[(1, 1), (2, 1)] * 9, *permutations((1, 2, 3), 2)]
    parts = []
    for start in range(0, len(shapes), 7):
        some = shapes[start : start + 7]
        columns: dict[str, Any] = {"key": [str(start + number) for number in range(len(some))]}
        columns |= {"grid_h": [h for h, _ in some], "grid_w": [w for _, w in some]}
        arrays = [np.full(h * w, start + number, np.int32) for number, (h, w) in enumerate(some)]
        parts.append(one_shape.Prepared(pa.RecordBatch.from_pydict(columns), arrays, [], len(some), 0))
    taken, given = 0, 0

    def counted() -> Any:
        nonlocal taken
        for part in parts:
            taken += part.columns.num_rows
            yield part

    def stepped() -> Any:
        for batch in one_shape.batches_of_one_shape(counted(), size, "codes"):
            assert batch.num_rows <= size
            assert (
                len({(h, w) for h, w in zip(batch["grid_h"].to_pylist(), batch["grid_w"].to_pylist(), strict=True)})
                == 1
            )
            yield batch.drop_columns(["codes"])

    keys = []
    for batch in one_shape.in_order(stepped()):
        keys += batch["key"].to_pylist()
        given += batch.num_rows
        assert taken - given <= (one_shape.BATCHES_HELD + 1) * size + 2 * 7
    assert keys == [str(number) for number in range(len(shapes))]


def test_larger_grids_are_computed_fewer_at_once(tiny_model: Path) -> None:
    """And the codes of a row are those that it has alone."""
    codec = find(str(tiny_model), "", TokenizerOptions()).tokenizer.load(device="cpu", batch_size=8, threads=1)
    assert [codec._rows_of(grid) for grid in (None, (8, 8), (4, 4), (16, 8), (40, 40))] == [8, 8, 8, 4, 1]
    images = np.stack([np.asarray(scene(32, 16).point(lambda v, n=n: (v + 40 * n) % 256)) for n in range(5)])
    together = codec.encode(images)
    for image, codes in zip(images, together, strict=True):
        np.testing.assert_array_equal(codec.encode(image[None])[0], codes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_is_finished_with_the_same_rows(
    source: Path, made: dict, tmp_path: Path, tiny_model: Path
) -> None:
    words = ["encode", "--input", source, "--model", tiny_model, *SMALL, "--rows_per_shard", ROWS, *FLAGS["bucket"]]
    output = tmp_path / "out"
    kill_at_work([*map(str, words), "--output", str(output)], tmp_path / "temp", output, 5)
    assert run(*words, output=output).code == 0
    assert visible(output) == visible(Path(made["bucket"].output))
