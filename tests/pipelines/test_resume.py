"""A rerun keeps what is done, does the rest, and `_SUCCESS` is true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from models.vqgan.checkpoint import save_vqgan
from pipelines import pending as jobs
from tests.support.run_command import encode, run
from tests.support.shard_runs import snapshot
from tests.support.small_jobs import ROWS, SHARDS, dataset, encode_small, write_table
from tests.support.vqgan_checkpoints import random_vqgan
from transforms import storage
from transforms.work.encode import EncodeStep


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> Path:
    """The output of an undisturbed run; not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "out"
    assert encode_small(source, output, tiny_model).code == 0
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a pipeline was started")

    monkeypatch.setattr(jobs, "run_pipeline", refuse)


@pytest.mark.usefixtures("no_work")
def test_a_finished_job_is_left_as_it_is(output: Path, source: Path, tiny_model: Path) -> None:
    before = snapshot(str(output))
    again = encode_small(source, output, tiny_model)
    assert again.code == 0
    assert again.out.startswith("Done already: 4 of 4 shards\n")
    assert "Resuming" not in again.err
    assert "40 read = 36 written + 4 rejected + 0 filtered" in again.out
    assert snapshot(str(output)) == before


@pytest.mark.usefixtures("no_work")
def test_a_job_killed_after_its_last_shard_gets_its_success(output: Path, source: Path, tiny_model: Path) -> None:
    (output / "_SUCCESS").unlink()
    assert encode_small(source, output, tiny_model).code == 0
    assert (output / "_SUCCESS").exists()


@pytest.mark.usefixtures("no_work")
def test_a_job_that_failed_for_its_rejected_rows_succeeds_once_they_are_tolerated(
    output: Path, source: Path, tiny_model: Path
) -> None:
    strict = encode_small(source, output, tiny_model, "--max_error_rate", "0.05")
    assert strict.code == 1
    advice = "if that is right, accept them with --max_error_rate 0.1\n"
    assert strict.out.startswith(f"Failed: rejected 4 of 40 rows (10.0%), more than --max_error_rate 0.05; {advice}")
    assert not (output / "_SUCCESS").exists()
    assert encode_small(source, output, tiny_model, "--max_error_rate", "0.1").code == 0
    assert (output / "_SUCCESS").exists()


def test_what_is_missing_is_done_again_byte_for_byte(
    output: Path, finished: Path, source: Path, tiny_model: Path
) -> None:
    layout = ("data/00001.parquet", "_vqbeam/stats/00001.json", "_vqbeam/stats/00003.json", "_SUCCESS")
    for name in layout:
        (output / name).unlink()
    resumed = encode_small(source, output, tiny_model, "--workers", "1")
    assert resumed.code == 0
    assert "Resuming: 2 of 4 shards done already" in resumed.err
    assert resumed.out.startswith("Done: 4 of 4 shards\n")
    assert resumed.last_run()["shards"] == {"adopted": 1, "done": 1}
    assert snapshot(str(output)) == snapshot(str(finished))


def test_success_is_gone_while_there_is_work(
    output: Path, source: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (output / "_vqbeam" / "stats" / "00002.json").unlink()
    seen: list[bool] = []

    def interrupted(*args: object, **options: object) -> None:
        seen.append((output / "_SUCCESS").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_pipeline", interrupted)
    for flags in ([], ["--retry_rejected"]):
        (output / "_SUCCESS").touch()
        with pytest.raises(KeyboardInterrupt):
            encode_small(source, output, tiny_model, *flags)
    assert seen == [False, False]
    assert not (output / "_SUCCESS").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--resize", "pad"], "preprocessing"),
        (["--jpeg_scale", "off"], "preprocessing"),
        (["--dtype", "bfloat16"], "dtype: the folder has 'float32', this command asks for 'bfloat16'"),
        (["--columns"], "input.columns: the folder has 'all', this command asks for []"),
        (["--caption_column", "key"], "input.caption_column: the folder has 'guessed', this command asks for 'key'"),
        (["--uri_schemes", "https"], "input.uri_schemes"),
        (["--rename", "a=b"], "input.rename"),
        (["--limit", "5"], "limit: the folder has 0, this command asks for 5"),
        (["--rows_per_shard", "3"], "rows_per_shard: the folder has 10, this command asks for 3"),
        (["--require_caption"], "rows.require_caption"),
        (["--min_image_size", "8"], "rows.min_image_size"),
        (["--max_aspect_ratio", "2"], "rows.max_aspect_ratio"),
        (["--max_image_bytes", "1000"], "rows.max_image_bytes"),
        (["--pixel_range", "0,2"], "pixel_range"),
    ],
)
def test_other_options_into_the_same_folder_stop_with_what_differs(
    finished: Path, source: Path, tiny_model: Path, flags: list[str], said: str
) -> None:
    before = snapshot(str(finished))
    refused = encode_small(source, finished, tiny_model, *flags)
    assert refused.code == 2
    assert "holds the output of another job" in refused.err
    assert said in refused.err
    assert snapshot(str(finished)) == before


@pytest.mark.usefixtures("no_work")
def test_other_inputs_weights_or_commands_into_the_same_folder_stop(
    finished: Path, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    write_table(tmp_path / "other.parquet", 0)
    refused = encode_small(tmp_path / "other.parquet", finished, tiny_model)
    assert (refused.code, "input.patterns" in refused.err) == (2, True)
    save_vqgan(random_vqgan(seed=1), tmp_path / "other", name="tiny")
    refused = encode_small(source, finished, tmp_path / "other")
    assert (refused.code, "weights_id" in refused.err) == (2, True)
    refused = run("decode", "--input", f"{finished}/data", "--output", finished)
    assert (refused.code, "belongs to `vqbeam encode`" in refused.err) == (2, True)


@pytest.mark.usefixtures("no_work")
def test_how_the_work_is_run_may_differ(finished: Path, source: Path, tiny_model: Path) -> None:
    flags = ["--batch_size", "2", "--device", "cpu", "--workers", "2", "--threads_per_worker", "2"]
    assert encode_small(source, finished, tiny_model, *flags).code == 0


@pytest.mark.parametrize(
    ("workers", "threads", "advice"),
    [(2, 1, None), (2, 2, "give --workers 1\n"), (1, 4, "give --threads_per_worker 2, which may round otherwise\n")],
)
def test_more_threads_than_cores_are_told(
    output: Path,
    source: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    threads: int,
    advice: str,
) -> None:
    (output / "_vqbeam" / "stats" / "00000.json").unlink()
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    flags = ("--workers", str(workers), "--threads_per_worker", str(threads), "--device", "cpu")
    run = encode_small(source, output, tiny_model, *flags)
    assert run.code == 0
    assert ("wait for one another on 2 cores" in run.err) == (advice is not None)
    assert advice is None or advice in run.err


def test_the_dtype_of_the_plan_holds_for_a_run_that_leaves_it_open(
    tmp_path: Path, source: Path, tiny_model: Path
) -> None:
    output = tmp_path / "out"
    assert encode_small(source, output, tiny_model, "--dtype", "bfloat16").code == 0
    whole = snapshot(str(output))
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    (output / "data" / "00001.parquet").unlink()
    assert encode_small(source, output, tiny_model).code == 0
    assert snapshot(str(output)) == whole


def test_the_same_weights_elsewhere_make_the_same_bytes(
    output: Path, finished: Path, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The provenance names the folder of the model as the stored plan does, also after a resume."""
    (output / "data" / "00000.parquet").unlink()
    (output / "_vqbeam" / "stats" / "00000.json").unlink()
    moved = shutil.copytree(tiny_model, tmp_path / "another name")
    assert encode_small(source, output, moved).code == 0
    assert snapshot(str(output)) == snapshot(str(finished))


def test_a_finished_job_needs_its_input_no_more(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in")
    assert encode_small(source, tmp_path / "out", tiny_model).code == 0
    shutil.rmtree(source)
    assert encode_small(source, tmp_path / "out", tiny_model).code == 0


def test_files_that_came_or_went_do_not_move_shards(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in")
    assert encode_small(source, tmp_path / "out", tiny_model).code == 0
    before = snapshot(str(tmp_path / "out"))
    write_table(source / "00 new.parquet", 1000)
    (source / "0.parquet").unlink()
    write_table(source / "1.parquet", 2000)
    for shard in (0, 1, 2):
        (tmp_path / "out" / "_vqbeam" / "stats" / f"{shard:05d}.json").unlink()
        (tmp_path / "out" / "data" / f"{shard:05d}.parquet").unlink()
    resumed = encode_small(source, tmp_path / "out", tiny_model)
    assert resumed.code == 1
    reasons = dict(resumed.last_run()["failed"])
    assert sorted(reasons) == [0, 1]
    assert "0.parquet is gone since the plan was made" in reasons[0]
    assert "1.parquet changed since the plan was made" in reasons[1]
    assert "1.parquet changed since the plan was made" in resumed.out
    after = snapshot(str(tmp_path / "out"))
    assert after["data/00002.parquet"] == before["data/00002.parquet"]
    assert "_vqbeam/stats/00001.json" not in after
    assert "_SUCCESS" not in after


@pytest.fixture
def model_that_fails_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The third batch of the run meets an exception of the device."""
    calls: list[int] = []
    real = EncodeStep.__call__

    def call(self: EncodeStep, batch: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the device is lost")
        return real(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(EncodeStep, "__call__", call)
    return calls


def test_an_exception_in_the_model_costs_one_shard_which_the_next_run_does(
    tmp_path: Path, source: Path, finished: Path, tiny_model: Path, model_that_fails_once: list[int]
) -> None:
    output = tmp_path / "out"
    failed = encode_small(source, output, tiny_model)
    assert failed.code == 1
    assert failed.last_run()["shards"] == {"done": SHARDS - 1, "failed": 1}
    assert "RuntimeError: the device is lost" in failed.out
    assert "Failed: 3 of 4 shards done\n" in failed.out
    assert not (output / "_SUCCESS").exists()
    assert failed.total("rows_rejected") == SHARDS - 1
    assert encode_small(source, output, tiny_model).code == 0
    assert snapshot(str(output)) == snapshot(str(finished))


@pytest.mark.usefixtures("no_work")
def test_too_little_room_is_said_before_anything_is_loaded(
    tmp_path: Path, source: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 5)
    refused = encode_small(source, tmp_path / "out", tiny_model)
    assert refused.code == 1
    assert "0.0 GB free" in refused.err
    assert "--temp_dir" in refused.err


def test_status_tells_how_far_a_job_is(output: Path) -> None:
    assert "encode, complete" in run("status", output).out
    (output / "_SUCCESS").unlink()
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    told = run("status", output)
    assert told.code == 0
    assert "encode, not complete" in told.out
    assert "3 of 4 done" in told.out
    assert "30 read = 27 written + 3 rejected" in told.out


def test_verify_says_fine_or_names_what_is_wrong(output: Path, tmp_path: Path) -> None:
    fine = run("verify", output)
    assert (fine.code, fine.out) == (0, f"{output}: 4 shards, every object as its mark says\n")
    (output / "data" / "00002.parquet").write_bytes(b"")
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    found = run("verify", output)
    assert found.code == 1
    assert "shard 00001 is not done" in found.out
    assert "data/00002.parquet has 0 bytes" in found.out
    assert "data/00001.parquet is in no mark" in found.out
    refused = run("verify", tmp_path / "nothing")
    assert (refused.code, "holds no plan of vqbeam" in refused.err) == (2, True)


@pytest.mark.usefixtures("no_work")
def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    shown = encode_small(source, tmp_path / "out", tiny_model, "--dry_run")
    assert shown.code == 0
    size = sum(path.stat().st_size for path in source.iterdir())
    for said in (
        "files       4",
        f"bytes       {size:,}",
        "shards      4 of at most 10 rows",
        "model       tiny (vqbeam, 16 px, 64 codes of 32)",
        "dtype       float32 on cpu, batch 4",
        f"output      {tmp_path / 'out'}",
        "largest     0000",
    ):
        assert said in shown.out
    assert re.search(r"^tail        the largest shard is 1\.[01] times the mean", shown.out, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_one_shard_tells_of_no_tail(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    shown = encode_small(source / "0.parquet", tmp_path / "out", tiny_model, "--dry_run")
    assert "largest     00000 (10 rows)" in shown.out
    assert "tail" not in shown.out.replace(str(tmp_path), "")


@pytest.mark.usefixtures("no_work")
def test_a_dry_run_in_a_folder_with_a_plan_shows_what_is_left(output: Path, source: Path, tiny_model: Path) -> None:
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    before = snapshot(str(output))
    shown = encode_small(source, output, tiny_model, "--dry_run")
    assert (shown.code, "stored plan 4 shards, 3 of them done" in shown.out) == (0, True)
    assert snapshot(str(output)) == before


@pytest.mark.usefixtures("no_work")
def test_a_dry_run_names_the_ten_largest_shards_and_their_tail(tmp_path: Path, tiny_model: Path) -> None:
    for number in range(11):
        write_table(tmp_path / "in" / f"{number:02d}.parquet", 0, rows=30 if number == 7 else 2)
    shown = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--rows_per_shard", "1", "--dry_run").out
    largest = next(line for line in shown.splitlines() if line.startswith("largest"))
    assert largest.count("(") == 10


def test_the_plan_is_readable_for_people(finished: Path) -> None:
    plan = json.loads((finished / "_vqbeam" / "plan.json").read_text())
    assert plan["command"] == "encode"
    assert plan["fingerprint"]["dtype"] == "float32"
    assert plan["fingerprint"]["rows_per_shard"] == ROWS
    assert plan["settings"]["batch_size"] == 4
