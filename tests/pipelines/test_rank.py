"""`vqbeam rank`, end to end, with a CLIP of random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from models.clip.pixels import read_clip_pixels
from tests.support.images import encoded, scene
from tests.support.make_inputs import samples, tar_of
from tests.support.run_command import Outcome, encode, run
from tests.support.shard_runs import snapshot
from tests.support.tiny_clip import LENGTH, SIDE, tiny_tokenizer
from transforms.ledger.plan import Plan

ROWS = 10
WORDS = ("a red apple", "a blue rocket on a red background", "rocket", "a blue apple")


def rank(source: Path, output: Path, clip: Path, *flags: str) -> Outcome:
    small = ("--batch_size", "4", "--threads_per_worker", "1", "--rows_per_shard", "4", "--device", "cpu")
    words = ("rank", "--input", source, "--clip", clip, *small, "--max_error_rate", "1")
    return run(*words, *flags, output=output)


def columns(**replaced: Any) -> dict[str, Any]:
    """Ten rows that differ; `replaced` are columns instead of these, or more."""
    images = [encoded(scene(20 + 3 * row, 24).rotate(9 * row), "PNG") for row in range(ROWS)]
    captions = [WORDS[row % len(WORDS)] for row in range(ROWS)]
    return {"key": [f"k{row}" for row in range(ROWS)], "image": images, "caption": captions, **replaced}


def write(path: Path, table: dict[str, Any]) -> Path:
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    passing = {"width": list(range(ROWS)), "seen": [[row, None] for row in range(ROWS)]}
    return write(tmp_path_factory.mktemp("in") / "pairs.parquet", columns(**passing))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_clip: Path) -> Outcome:
    outcome = rank(source, tmp_path_factory.mktemp("ranked") / "out", tiny_clip, "--keep_images")
    assert outcome.code == 0, outcome.err
    return outcome


def own_scores(clip: Path, rows: list[dict[str, Any]]) -> list[float]:
    """What transformers makes of each pair, by itself and without padding."""
    model = CLIPModel.from_pretrained(clip).eval()
    pixels = read_clip_pixels(clip, SIDE)
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(LENGTH)
    scores = []
    for row in rows:
        image = torch.from_numpy(pixels(np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB"))))[None]
        ids = torch.tensor([tokenizer.encode(row["caption"]).ids])
        with torch.inference_mode():
            logits = model(input_ids=ids, pixel_values=image).logits_per_image
            scores.append(float(logits / model.logit_scale.exp()))
    return scores


def test_scores_are_those_of_transformers_and_all_else_stays_as_it_was(
    ranked: Outcome, source: Path, tiny_clip: Path
) -> None:
    came = pq.read_table(source).to_pylist()
    rows = ranked.rows()
    assert np.ptp([row["clip_score"] for row in rows]) > 0.01
    np.testing.assert_allclose([row["clip_score"] for row in rows], own_scores(tiny_clip, came), atol=1e-6)
    for name in ("key", "caption", "width", "seen"):
        assert [row[name] for row in rows] == [row[name] for row in came]
    assert [row["original_width"] for row in rows] == [20 + 3 * row for row in range(ROWS)]
    names = pq.read_schema(f"{ranked.output}/data/00000.parquet").names
    assert names == ["key", "caption", "clip_score", "image", "original_width", "original_height", "width", "seen"]
    ranked.check_nothing_lost()


def test_a_table_says_which_clip_scored_it_and_how(ranked: Outcome) -> None:
    schema = pq.read_schema(f"{ranked.output}/data/00000.parquet")
    assert schema.field("clip_score").type == pa.float32()
    made = json.loads(schema.metadata[b"vqbeam"])
    assert (made["command"], made["clip"]["name"], len(made["clip"]["weights_id"])) == ("rank", "clip", 64)
    assert made["preprocessing"]["resize"] == SIDE
    assert made["preprocessing"]["resample"] == "bicubic"


def test_pairs_below_the_least_score_are_filtered_and_counted(
    ranked: Outcome, source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    scores = {row["key"]: row["clip_score"] for row in ranked.rows()}
    least = sorted(scores.values())[ROWS // 2]
    some = rank(source, tmp_path / "out", tiny_clip, "--min_clip_score", str(least))
    assert some.code == 0, some.err
    assert [(row["key"], row["clip_score"]) for row in some.rows()] == [
        (key, score) for key, score in scores.items() if score >= least
    ]
    assert some.by_reason("filters") == {"min_clip_score": ROWS // 2}
    assert "image" not in some.rows()[0]
    some.check_nothing_lost()


def test_what_was_kept_goes_straight_into_encode(
    ranked: Outcome, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    tokens = encode(f"{ranked.output}/data/*.parquet", tmp_path / "tokens", tiny_model)
    assert tokens.code == 0, tokens.err
    plain = encode(source, tmp_path / "plain", tiny_model)
    assert [row["clip_score"] for row in tokens.rows()] == [row["clip_score"] for row in ranked.rows()]
    assert [{**row, "clip_score": None} for row in tokens.rows()] == [
        {**row, "clip_score": None} for row in plain.rows()
    ]


def test_a_run_that_goes_on_and_runs_of_other_shape_write_the_same_bytes(
    ranked: Outcome, source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    flags = ("--keep_images", "--direct_running_mode", "multi_threading", "--workers", "2")
    output = tmp_path / "out"
    assert rank(source, output, tiny_clip, *flags).code == 0
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    (output / "data" / "00001.parquet").unlink()
    assert rank(source, output, tiny_clip, *flags).code == 0
    first, second = snapshot(ranked.output), snapshot(str(output))
    plan = "_vqbeam/plan.json", "_vqbeam/shards.parquet"  # the number of workers is in them
    assert {name: data for name, data in first.items() if name not in plan} == {
        name: data for name, data in second.items() if name not in plan
    }
    assert run("verify", output).code == 0


def test_other_options_are_another_job_which_overwrite_begins(source: Path, tiny_clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert rank(source, output, tiny_clip).code == 0
    other = ("--min_clip_score", "-1")
    refused = rank(source, output, tiny_clip, *other)
    assert (refused.code, "min_clip_score: the folder has 'none'" in refused.err) == (2, True)
    again = rank(source, output, tiny_clip, *other, "--overwrite")
    assert (again.code, len(again.rows())) == (0, ROWS)


def test_captions_may_be_lists_and_rows_without_one_are_rejected(tiny_clip: Path, tmp_path: Path) -> None:
    captions = [["", WORDS[row % len(WORDS)], "a"] for row in range(ROWS)]
    captions[3], captions[5] = [], [" "]
    lists = rank(write(tmp_path / "a.parquet", columns(caption=captions)), tmp_path / "out", tiny_clip)
    assert lists.code == 0, lists.err
    assert [row["caption"] for row in lists.rows()] == [captions[row] for row in range(ROWS) if row not in (3, 5)]
    expected = own_scores(tiny_clip, pq.read_table(write(tmp_path / "b.parquet", columns())).to_pylist())
    got = {row["key"]: row["clip_score"] for row in lists.rows()}
    np.testing.assert_allclose([got["k0"], got["k9"]], [expected[0], expected[9]], atol=1e-6)
    assert [(row["key"], row["error"]) for row in lists.rejected()] == [
        ("k3", "missing_caption"),
        ("k5", "missing_caption"),
    ]


@pytest.mark.parametrize("kind", ["webdataset", "jsonl"])
def test_other_formats_are_ranked_and_named_images_keep_their_names(kind: str, tiny_clip: Path, tmp_path: Path) -> None:
    members = dict(samples("x", "y"))
    if kind == "webdataset":
        source = tmp_path / "pairs.tar"
        source.write_bytes(tar_of(list(members.items())))
    else:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "x.jpg").write_bytes(members["x.jpg"])  # type: ignore[arg-type]
        source = tmp_path / "pairs.jsonl"
        source.write_text('{"image_path": "images/x.jpg", "caption": "caption x"}\n')
    outcome = rank(source, tmp_path / "out", tiny_clip, "--keep_images")
    assert outcome.code == 0, outcome.err
    first = outcome.rows()[0]
    assert (first["caption"], first["image"]["bytes"]) == ("caption x", members["x.jpg"])
    assert first["image"]["path"] == (None if kind == "webdataset" else "x.jpg")


def test_a_score_that_is_there_already_is_a_clash_that_rename_solves(tiny_clip: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", columns(clip_score=[0.5] * ROWS))
    refused = rank(source, tmp_path / "out", tiny_clip)
    assert (refused.code, "rename it (clip_score=NAME)" in refused.err) == (2, True)
    assert not (tmp_path / "out").exists()
    solved = rank(source, tmp_path / "out", tiny_clip, "--rename", "clip_score=old_score")
    assert solved.code == 0, solved.err
    assert {row["old_score"] for row in solved.rows()} == {0.5}


def test_an_encoding_passes_through_since_rank_writes_none(tiny_clip: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", columns(encoding=[[1, 2]] * ROWS))
    outcome = rank(source, tmp_path / "out", tiny_clip)
    assert outcome.code == 0, outcome.err
    assert outcome.rows()[0]["encoding"] == [1, 2]


def test_what_cannot_be_ranked_is_refused_before_anything_is_written(
    source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in tiny_clip.iterdir():
        (torn / path.name).write_bytes(path.read_bytes())
    (torn / "tokenizer.json").unlink()
    plain = write(tmp_path / "a.parquet", {"image": columns()["image"]})
    for pairs, clip, flags, said in (
        (source, tmp_path / "empty", (), "no CLIP here"),
        (source, tmp_path / "nowhere", (), "no model"),
        (source, torn, (), "no tokenizer here"),
        (plain, tiny_clip, (), "no column looks like the caption"),
        (source, tiny_clip, ("--min_clip_score", "1.5"), "'1.5': expected a number from -1 to 1"),
        (source, tiny_clip, ("--min_clip_score", "nan"), "'nan': expected a number from -1 to 1"),
    ):
        refused = rank(pairs, tmp_path / "out", clip, *flags)
        assert (refused.code, said in refused.err) == (2, True), refused.err
    assert not (tmp_path / "out").exists()


def test_captions_are_cleaned_unless_they_are_to_be_raw(tmp_path: Path, tiny_clip: Path) -> None:
    """As open_clip does; a job keeps the choice that it began with, and one from before there was one reads raw."""
    captions = ["red &amp; apple", "red & apple"]
    pairs = write(tmp_path / "in.parquet", {"image": [encoded(scene(20, 20), "PNG")] * 2, "caption": captions})
    found = {
        name: [row["clip_score"] for row in rank(pairs, tmp_path / name, tiny_clip, *flags).rows()]
        for name, flags in {"open": (), "clean": ("--clip_text", "clean"), "raw": ("--clip_text", "raw")}.items()
    }
    assert found["open"] == found["clean"]
    assert found["clean"][0] == found["clean"][1] == found["raw"][1]
    assert found["raw"][0] != found["clean"][0]
    assert rank(pairs, tmp_path / "raw", tiny_clip).code == 0
    other = rank(pairs, tmp_path / "raw", tiny_clip, "--clip_text", "clean")
    assert (other.code, "clip_text: the folder has 'raw'" in other.err) == (2, True)
    assert Plan("rank", {}, {}, {}).choice("clip_text") == "raw"
