"""What --dry_run tells of the time, the size and the cost of a job, for people and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines import cost
from pipelines.machine_speed import Speed
from tests.support.job_service import Script, State, job_service
from tests.support.paths import ROOT, SAMPLE
from tests.support.run_command import SMALL, run
from tests.support.small_jobs import dataset, encode_small
from tests.support.tiny_generator import write_prompts

TAR = SAMPLE / "emoji-00000.tar"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    outcome = run("encode", "--input", TAR, "--limit", 30, "--rows_per_shard", 10, *SMALL, output=tmp_path / "tokens")
    assert outcome.code == 0, outcome.err
    return tmp_path / "tokens"


def told(*words: object, output: Path) -> dict[str, Any]:
    shown = run(*words, "--dry_run", "--json", output=output)
    assert shown.code == 0, shown.err
    (line,) = shown.out.splitlines()
    return json.loads(line)


def test_every_command_tells_its_job(tokens: Path, tmp_path: Path) -> None:
    commands = {
        "encode": ("--input", TAR),
        "decode": ("--input", tokens / "data"),
        "generate": ("--prompt", "a red apple", "--images_per_prompt", 3),
        "vary": ("--input", TAR, "--images_per_input", 2),
        "rank": ("--input", TAR),
        "evaluate": ("--input", TAR),
        "export": ("--input", tokens / "data"),
    }
    for command, words in commands.items():
        found = told(command, *words, output=tmp_path / "new")
        left = found["pending"]
        assert found["command"] == command
        assert left["by"] == "measured"
        assert left["seconds"] > left["worker_seconds"] > 0
        assert left["bytes"] > 0
        assert left["images"] == left["rows"] * {"generate": 3, "vary": 2}.get(command, 1)
        if command in ("encode", "generate"):
            assert left["rows_estimated"] == (TAR in words), "only reading a tar tells its rows"
    assert not (tmp_path / "new").exists()


def test_images_are_estimated_if_rows_say_how_many(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", [{"prompt": "a ghost", "images": 3}, {"prompt": "a boat"}])
    left = told("generate", "--input", prompts, "--images_per_prompt", 2, output=tmp_path / "new")["pending"]
    assert (left["rows"], left["images"], left["rows_estimated"]) == (2, 4, True)


def test_all_fields_are_documented(tokens: Path) -> None:
    text = (
        (ROOT / "docs" / "encode.md").read_text().partition("| field of `--dry_run --json` |")[2].partition("\n\n")[0]
    )
    names = set(re.findall(r"`(\w+)`", text)) - {"name", "source", "role", "recorded", "measured", "assumed"}
    found = told("encode", "--input", TAR, output=tokens.parent / "new")
    assert names == found.keys() | found["pending"].keys()


def test_a_slow_machine_takes_longer_and_costs_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, costs = [], []
    for flops in (1e9, 1e8):
        monkeypatch.setattr(
            cost, "speed_here", lambda device, dtypes, flops=flops: Speed(dict.fromkeys(dtypes, flops), 1e10)
        )
        words = (
            "encode",
            "--input",
            dataset(tmp_path / "in", 1),
            *SMALL,
            "--rows_per_shard",
            4,
            "--price_per_hour",
            36,
        )
        left = told(*words, output=tmp_path / "out")["pending"]
        seconds.append(left["worker_seconds"])
        costs.append(left["cost"])
        assert left["cost"] == pytest.approx(left["seconds"] / 100, abs=1e-3), "36 an hour is 1 in 100 s"
    assert seconds[1] == pytest.approx(10 * seconds[0], rel=0.1)
    assert costs[1] > costs[0]


def test_shards_that_are_done_say_how_long_the_others_take(tokens: Path) -> None:
    marks = tokens / "_vqbeam" / "stats"
    done = json.loads((marks / "00001.json").read_text())
    (marks / "00001.json").write_text(json.dumps(done | {"seconds": 1000.0}))
    (marks / "00000.json").write_text(json.dumps(json.loads((marks / "00000.json").read_text()) | {"seconds": 0.0}))
    (marks / "00002.json").unlink()
    words = ("encode", "--input", TAR, "--limit", 30, "--rows_per_shard", 10, *SMALL)
    found = told(*words, output=tokens)
    left = found["pending"]
    assert (found["shards"], found["shards_done"], left["shards"], left["rows"]) == (3, 2, 1, 10)
    assert (left["by"], left["worker_seconds"]) == ("recorded", 500.0)
    assert left["bytes"] == pytest.approx(done["bytes"], rel=0.5)
    assert (
        "0:08:25, 5 s of them to start, by the speed of the shards that are done here"
        in run(*words, "--dry_run", output=tokens).out
    )


def test_nothing_is_left_of_a_finished_job(tokens: Path) -> None:
    words = ("encode", "--input", TAR, "--limit", 30, "--rows_per_shard", 10, *SMALL)
    left = told(*words, output=tokens)["pending"]
    assert (left["shards"], left["seconds"], left["bytes"]) == (0, 0.0, 0)
    assert "time        none: every shard is done\n" in run(*words, "--dry_run", output=tokens).out


def test_the_time_of_workers_elsewhere_is_that_of_one(tmp_path: Path) -> None:
    with job_service(Script(State.FAILED)) as running:
        runner = ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=LOOPBACK")
        words = ("encode", "--input", dataset(tmp_path / "in", 1), *runner, "--price_per_hour", 3600)
        left = told(*words, output=tmp_path / "out")["pending"]
        shown = run(*words, "--dry_run", output=tmp_path / "out").out
    assert (left["by"], left["seconds"], left["workers"]) == ("assumed", None, None)
    assert left["cost"] == pytest.approx(left["worker_seconds"], abs=0.1)
    assert "of one worker, by the models' arithmetic, for a worker as docs/resume.md assumes it" in shown


def test_the_size_told_is_near_the_size_written(tmp_path: Path) -> None:
    for command, words in {
        "encode": ("--input", SAMPLE / "emoji.parquet", "--limit", 200),
        "generate": ("--prompt", "a red apple", "--images_per_prompt", 8, "--batch_size", 8),
    }.items():
        expected = told(command, *words, output=tmp_path / command)["pending"]["bytes"]
        done = run(command, *words, output=tmp_path / command)
        assert done.code == 0, done.err
        assert expected / 2 < done.total("bytes") < expected * 2


@pytest.mark.parametrize("flag", [("--json",), ("--price_per_hour", "1")])
def test_flags_of_a_dry_run_are_refused_without_one(tmp_path: Path, tiny_model: Path, flag: tuple[str, ...]) -> None:
    refused = encode_small(dataset(tmp_path / "in", 1), tmp_path / "out", tiny_model, *flag)
    refused.check_refused(f"{flag[0]} is of --dry_run: give that, too, or leave it out")
