"""What depends on a worker is not read off the launcher of a job elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.find import cache_folder
from pipelines.accelerators import GPUS, MACHINES, Accelerator
from tests.support.job_service import Script, State, job_service
from tests.support.large_machine import make_large
from tests.support.run_command import run
from tests.support.small_jobs import dataset
from transforms.engine.beam import ProcessShards
from transforms.engine.job import Job


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches as large as memory holds them, so that they follow from it."""
    monkeypatch.setattr("models.image_tokenizer.MAX_BATCH", 1 << 60)
    monkeypatch.setattr("models.bart.config.MOST_IMAGES", {"cpu": 1 << 60, "cuda": 1 << 60})


def planned(command: str, words: tuple[Any, ...], output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Job]:
    """The plan of a job on an engine, and the job that its workers get."""
    jobs: list[Job] = []

    def process(job: Job) -> ProcessShards:
        jobs.append(job)
        return ProcessShards(job)

    monkeypatch.setattr("pipelines.pending.ProcessShards", process)
    with job_service(Script(State.FAILED)) as running:
        flags = ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=LOOPBACK")
        done = run(command, *words, *flags, output=output)
    assert done.code == 1, done.err
    (job,) = jobs
    return json.loads((output / "_vqbeam" / "plan.json").read_text()), replace(job, output="")


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize(
    ("command", "device"), [("encode", "auto"), ("encode", "cuda"), ("generate", "cuda"), ("rank", "auto")]
)
def test_a_plan_for_workers_elsewhere_is_that_of_any_launcher(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, command: str, device: str
) -> None:
    words = {
        "encode": ("--input", dataset(tmp_path / "in", 1), "--model", tiny_model),
        "generate": ("--prompt", "a red apple", "--images_per_prompt", "300", "--clip", "emoji"),
        "rank": ("--input", dataset(tmp_path / "in", 1), "--clip", "emoji"),
    }[command]
    small = planned(command, (*words, "--device", device), tmp_path / "small", monkeypatch)
    make_large(monkeypatch, tmp_path)
    large = planned(command, (*words, "--device", device), tmp_path / "large", monkeypatch)
    assert small == large
    plan, job = large
    kind = "cuda" if device == "cuda" else "cpu"
    assert plan["settings"]["device"] == job.device == kind
    assert plan["settings"]["threads_per_worker"] == 1
    assert plan["fingerprint"]["dtype"] == ("bfloat16" if kind == "cuda" and command != "rank" else "float32")
    assert (job.temp_dir, job.scratch, job.processes) == (None, None, 1)
    assert job.decode_threads == (0 if kind == "cuda" else 1), "those of a GPU are the worker's cores"


def test_the_temporary_folder_of_workers_need_not_be_one_of_the_launcher(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    there = str(tmp_path / "file" / "folder")
    words = ("--input", dataset(tmp_path / "in", 1), "--model", tiny_model, "--temp_dir", there)
    _, job = planned("encode", words, tmp_path / "out", monkeypatch)
    assert job.temp_dir == there
    refused = run("encode", *words, output=tmp_path / "here")
    refused.check_refused("no temporary folder can be made")


def test_each_machine_has_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VQBEAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder("") == Path("~/.cache/vqbeam").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder("") == Path("/caches/vqbeam")
    monkeypatch.setenv("VQBEAM_CACHE", "~/mine")
    assert cache_folder("") == Path("~/mine").expanduser()
    assert cache_folder("/given") == Path("/given")


def test_each_type_of_gpu_is_known() -> None:
    assert set(GPUS) == set(MACHINES)
    gpu = Accelerator("nvidia-l4", 2).gpu
    assert gpu is not None
    assert gpu.bytes == 22 << 30
    assert Accelerator("nvidia-of-tomorrow", 1).gpu is None
    slowest_first = sorted(GPUS, key=lambda kind: GPUS[kind].flops)
    assert (slowest_first[0], slowest_first[-1]) == ("nvidia-tesla-t4", "nvidia-h100-80gb")
    without = {kind for kind, found in GPUS.items() if not found.multiplies_bfloat16}
    assert without == {"nvidia-tesla-t4", "nvidia-tesla-v100"}
