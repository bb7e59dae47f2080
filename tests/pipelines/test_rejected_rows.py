"""`vqbeam errors` and the summary show rejected rows, and nothing that a terminal would obey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.make_inputs import GOOD, files, image_table
from tests.support.run_command import Outcome, encode, run
from tests.support.small_jobs import dataset, encode_small

HOSTILE = "k\x1b[31m\nline\u202e"


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> Outcome:
    """Eight rows in two shards: four are no images, one has none."""
    images = [b"no image", GOOD, None, b"no image", GOOD, GOOD, b"no image", b"no image"]
    keys = [HOSTILE, *(f"k{row}" for row in range(1, 8))]
    files({"in/a.parquet": image_table(images, key=keys)})(tmp_path)
    result = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--rows_per_shard", "4", "--max_error_rate", "1")
    assert result.code == 0, result.err
    return result


def test_rejected_rows_are_printed_with_their_reasons(job: Outcome) -> None:
    shown = run("errors", job.output)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["not_an_image", "missing_image", *["not_an_image"] * 3]
    assert r"k\x1b[31m line\u202e" in lines[0]
    assert "in/a.parquet#2: " in lines[1]
    assert shown.err.strip().endswith("5 of 5 rejected rows: not_an_image 4, missing_image 1")


@pytest.mark.parametrize(
    ("flags", "keys", "told"),
    [
        (("--limit", "2"), [HOSTILE, "k2"], "2 of 5 rejected rows"),
        (("--code", "missing_image"), ["k2"], "1 of 1 rejected rows: missing_image 1"),
        (("--code", "not_an_image", "--limit", "1"), [HOSTILE], "1 of 4 rejected rows"),
        (("--code", "broken_image"), [], "no rejected rows"),
        ((), [HOSTILE, "k2", "k3", "k6", "k7"], "5 of 5 rejected rows"),
    ],
)
def test_json_has_all_of_each_row(job: Outcome, flags: tuple[str, ...], keys: list[str], told: str) -> None:
    shown = run("errors", job.output, "--json", *flags)
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [row["key"] for row in rows] == keys
    assert all(set(row) == {"shard", "key", "uri", "stage", "error", "message"} for row in rows)
    assert [row["shard"] for row in rows] == [int(key[1:2] > "3") for key in keys]
    assert told in shown.err


def test_more_is_told_and_a_code_that_is_none_is_refused(job: Outcome) -> None:
    assert "; --limit 5 shows all" in run("errors", job.output, "--limit", "2").err
    refused = run("errors", job.output, "--code", "no_image")
    assert (refused.code, "no_image" in refused.err, "missing_image" in refused.err) == (2, True, True)


def test_the_summary_shows_the_first_rows(tmp_path: Path, job: Outcome, tiny_model: Path) -> None:
    assert f"  rejected   `vqbeam errors {job.output}` shows 5 rows\n    not_an_image  k" in job.out
    more = encode_small(dataset(tmp_path / "more", files=6), tmp_path / "more_out", tiny_model)
    assert f"the first 5; `vqbeam errors {more.output}` shows 6 rows" in more.out
    assert more.out.count("    not_an_image  ") == 5


def test_a_list_that_is_gone_is_said_and_the_summary_goes_on(job: Outcome, tiny_model: Path) -> None:
    next(Path(job.output, "_vqbeam", "errors").iterdir()).unlink()
    shown = run("errors", job.output)
    assert (shown.code, "is missing: `vqbeam verify --repair" in shown.err) == (1, True)
    again = encode(
        Path(job.output).parent / "in", job.output, tiny_model, "--rows_per_shard", "4", "--max_error_rate", "1"
    )
    assert "is missing" in again.out
    assert "Traceback" not in again.err


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    refused = run("errors", tmp_path)
    assert (refused.code, "holds no plan of vqbeam" in refused.err) == (2, True)
    (tmp_path / "file").touch()
    refused = run("errors", tmp_path / "file")
    assert refused.err.startswith(f"vqbeam errors: {tmp_path}/file is a file, or in one, and no folder: choose another")
