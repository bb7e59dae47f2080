"""`vqbeam encode --views`: a row a view, from each image decoded once, whatever the shards, workers and batches."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.families import LLAMAGEN, golden
from tests.support.images import encoded, scene
from tests.support.make_inputs import folder, table
from tests.support.real_runs import kill_at_work, visible
from tests.support.run_command import SMALL, Outcome, encode, run
from tests.support.small_jobs import ROWS, SHARDS, dataset, encode_small
from transforms.image_formats import READERS

KINDS = {"center": 1, "flip": 2, "ten_crop": 10, "random:3": 3}
MODEL = LLAMAGEN / "vq_ds2_small.pt"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rows, of which 4 hold no image."""
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> dict[str, Outcome]:
    root = tmp_path_factory.mktemp("views")
    return {kind: encode_small(source, root / kind[:3], tiny_model, "--views", kind) for kind in KINDS}


def codes_of(outcome: Outcome) -> dict[tuple[str, int], tuple[list[int], dict]]:
    return {(row["key"], row["view"]): (row["encoding"], row["crop"]) for row in outcome.rows()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_a_view_and_every_image_is_accounted_for(kind: str, made: dict[str, Outcome]) -> None:
    outcome, views = made[kind], KINDS[kind]
    assert outcome.code == 0, outcome.err
    outcome.check_nothing_lost()
    rows = outcome.rows()
    assert [row["key"] for row in rows[:views]] == ["k0"] * views
    assert [row["view"] for row in rows] == list(range(views)) * 36
    written = f"{40 * views} read = {36 * views} written + {4 * views} rejected + 0 filtered"
    images = f"images     40 read = 36 written + 4 rejected + 0 filtered, {views} row{'s' * (views > 1)} each"
    for text in (outcome.out, run("status", outcome.output).out):
        assert (written in text, images in text) == (True, True), text
    assert "more than once" not in outcome.out  # keys repeat on purpose
    told = outcome.last_run()
    assert told["rows"]["rows_read"] == 40 * views
    assert told["images"] == {"images_read": 40, "images_written": 36, "images_rejected": 4, "images_filtered": 0}
    assert run("verify", outcome.output).code == 0


def test_without_views_nothing_is_said_of_them(source: Path, made: dict, tmp_path: Path, tiny_model: Path) -> None:
    plain = encode_small(source, tmp_path / "out", tiny_model)
    assert "view" not in plain.rows()[0]
    assert "views" not in plain.read("_vqbeam/plan.json").decode()
    assert "images" not in plain.last_run()
    first = {row["key"]: row["encoding"] for row in plain.rows()}
    for kind in ("center", "flip"):
        assert {key: codes for (key, view), (codes, _) in codes_of(made[kind]).items() if view == 0} == first


def test_ten_crops_and_mirror_images_have_the_codes_of_llamagen(tmp_path: Path) -> None:
    names = ["landscape", "portrait", "small"]
    pictures = tmp_path / "png"
    folder(
        pictures, {f"{n}-{name}.png": (LLAMAGEN / "png" / f"{name}.png").read_bytes() for n, name in enumerate(names)}
    )
    for flags, stored in (
        (("ten_crop",), "tencrop11_codes"),
        (("ten_crop", "--crop_scale", "1.05"), "tencrop105_codes"),
        (("flip",), "flip_codes"),
    ):
        made = encode(pictures, tmp_path / stored, MODEL, "--image_size", "32", "--views", *flags)
        assert made.code == 0, made.err
        expected = golden(LLAMAGEN, stored)[:3].reshape(-1, 256)
        np.testing.assert_array_equal([row["encoding"] for row in made.rows()], expected)


@pytest.mark.parametrize("kind", ["ten_crop", "random:3"])
def test_shards_workers_and_batches_change_no_view(
    kind: str, made: dict[str, Outcome], source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    wanted, plain = made[kind].rows(), made[kind].rows()
    for number, flags in enumerate(
        (
            ("--rows_per_shard", "7"),
            ("--workers", "2", "--direct_running_mode", "multi_threading"),
            ("--batch_size", "7"),
        )
    ):
        again = encode_small(source, tmp_path / str(number), tiny_model, "--views", kind, *flags)
        assert again.code == 0, again.err
        rows = again.rows()
        if "--batch_size" in flags:  # codes may differ where two are as near
            pairs = [np.array([row.pop("encoding") for row in some]) for some in (rows, plain)]
            assert (pairs[0] == pairs[1]).mean() > 0.99
            assert rows == plain
        else:
            assert rows == wanted


def test_a_resumed_run_makes_the_same_views(made: dict, source: Path, tmp_path: Path, tiny_model: Path) -> None:
    output = Path(shutil.copytree(made["random:3"].output, tmp_path / "out"))
    for name in ("_vqbeam/stats/00001.json", "data/00001.parquet", "_SUCCESS"):
        (output / name).unlink()
    again = encode_small(source, output, tiny_model, "--views", "random:3", "--seed", "0")
    assert again.code == 0, again.err
    assert (output / "data/00001.parquet").read_bytes() == Path(
        made["random:3"].output, "data/00001.parquet"
    ).read_bytes()
    for flags, told in (
        ((), "views: the folder has {'count': 3, 'crop_scale': [0.2, 1.0], 'kind': 'random', 'seed': 0}, this"),
        (("--views", "random:4"), "views.count: the folder has 3, this command asks for 4"),
        (("--views", "random:3", "--seed", "1"), "views.seed: the folder has 0, this command asks for 1"),
    ):
        refused = encode_small(source, output, tiny_model, *flags)
        assert (refused.code, told in refused.err) == (2, True), refused.err


def test_the_plan_says_how_many_rows_there_will_be(source: Path, tmp_path: Path, tiny_model: Path) -> None:
    plan = encode(source, tmp_path / "out", tiny_model, "--views", "ten_crop", "--dry_run", "--limit", "25")
    assert "rows        25\nviews       10 an image, 250 rows in all" in plan.out


def test_an_image_is_decoded_once(
    source: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    png = READERS["PNG"]
    monkeypatch.setitem(READERS, "PNG", lambda file: opened.append(file) or png(file))
    assert encode_small(source / "0.parquet", tmp_path / "out", tiny_model, "--views", "ten_crop").code == 0
    assert len(opened) == 9


def test_keys_that_repeat_are_those_of_images(source: Path, tmp_path: Path, tiny_model: Path) -> None:
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a", "b"):
        shutil.copy(source / "0.parquet", twice / f"{name}.parquet")
    made = encode_small(twice, tmp_path / "out", tiny_model, "--views", "flip")
    assert "9 keys occur more than once (18 rows)" in made.out


def test_smaller_images_than_the_crop_are_rejected_with_resize_none(tmp_path: Path, tiny_model: Path) -> None:
    images = [encoded(scene(*sides), "PNG") for sides in ((16, 16), (15, 40), (40, 30))]
    folder(tmp_path / "in", {"a.parquet": table({"key": ["a", "b", "c"], "image": images})})
    made = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--views", "ten_crop", "--resize", "none")
    assert made.code == 0, made.err
    assert Counter(row["key"] for row in made.rows()) == {"a": 10, "c": 10}
    made.check_nothing_lost()
    assert {row["message"] for row in made.rejected()} == {
        "15 x 40 pixels, smaller than a view of 16 x 16, and resize none does not enlarge"
    }


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--views", "five_crop"), "--views: 'five_crop' is unknown"),
        (("--views", "flip", "--crop_scale", "1.2"), "--crop_scale: views flip have none; leave it out"),
        (("--crop_scale", "1.2"), "--crop_scale is of --views; give that, or leave it out"),
        (("--seed", "2"), "--seed is of --views"),
        (("--views", "ten_crop", "--crop_scale", "x"), "'x': expected a number, or LOW,HIGH"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: tuple[str, ...], told: str, source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    encode(source, tmp_path / "out", tiny_model, *flags).check_refused(told)


def test_a_column_called_view_is_only_in_the_way_of_views(tmp_path: Path, tiny_model: Path) -> None:
    images = {"key": ["a"], "image": [encoded(scene(20, 20), "PNG")], "view": ["from above"]}
    folder(tmp_path / "in", {"a.parquet": table(images)})
    words = (tmp_path / "in", tmp_path / "out", tiny_model)
    encode(*words, "--views", "flip").check_refused("column view would be written as view, a name that is taken")
    assert encode(*words).rows()[0]["view"] == "from above"


def test_every_view_is_decoded_into_a_file_of_its_own(made: dict, tmp_path: Path) -> None:
    tokens = made["random:3"]
    for layout in ("files", "webdataset"):
        words = ("decode", "--input", f"{tokens.output}/data/*.parquet", "--image_layout", layout, *SMALL)
        images = run(*words, output=tmp_path / layout)
        assert images.code == 0, images.err
        assert images.total("rows_written") == 108
    names = [row["image_path"] for row in run(*words[:3], *SMALL, output=tmp_path / "files").rows()]
    assert len(set(names)) == 108
    assert all((tmp_path / "files" / name).is_file() for name in names)


def test_export_keeps_views_apart_and_an_image_on_one_side(made: dict, source: Path, tmp_path: Path) -> None:
    tables = f"{made['ten_crop'].output}/data/*.parquet"
    words = ("export", "--input", tables, "--dedup", "key", "--split", "train=0.6,val=0.4", "--rows_per_shard", "50")
    exported = run(*words, output=tmp_path / "out")
    assert exported.code == 0, exported.err
    sides = {}
    for side in ("train", "val"):
        rows = [
            row
            for path in sorted((tmp_path / "out" / side / "data").iterdir())
            for row in pq.read_table(path).to_pylist()
        ]
        sides[side] = Counter(row["key"] for row in rows)
        assert set(sides[side].values()) == {10}
        assert sum(one["key"] == other["key"] for one, other in pairwise(rows)) < len(rows) / 2
    assert len(sides["train"]) + len(sides["val"]) == 36
    assert not sides["train"].keys() & sides["val"].keys()
    refused = run("export", "--input", tables, "--columns", "crop", output=tmp_path / "other")
    refused.check_refused("holds several views of each image, which the column view tells apart: keep it")
    twice = run(
        "export", "--input", tables, f"{made['flip'].output}/data/*.parquet", "--dedup", "key", output=tmp_path / "two"
    )
    assert twice.code == 0, twice.err
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "two" / "data").iterdir()) == 360


def test_verify_sees_views_that_are_missing(made: dict, tmp_path: Path) -> None:
    output = Path(shutil.copytree(made["flip"].output, tmp_path / "out"))
    mark = output / "_vqbeam/stats/00000.json"
    mark.write_text(
        mark.read_text()
        .replace('"rows_read": 20', '"rows_read": 21')
        .replace('"rows_rejected": 2', '"rows_rejected": 3')
    )
    verified = run("verify", output)
    assert verified.code == 1
    assert "shard 00000: 21 rows read, no multiple of the 2 views of an image" in verified.out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_is_finished_with_the_same_views(
    source: Path, made: dict, tmp_path: Path, tiny_model: Path
) -> None:
    words = [
        "encode",
        "--input",
        source,
        "--model",
        tiny_model,
        *SMALL,
        "--rows_per_shard",
        ROWS,
        "--views",
        "random:3",
    ]
    output = tmp_path / "out"
    kill_at_work([*map(str, words), "--output", str(output)], tmp_path / "temp", output, 6)
    assert run(*words, output=output).code == 0
    assert visible(output) == visible(Path(made["random:3"].output))
    assert len(list(output.glob("_vqbeam/stats/*.json"))) == SHARDS
