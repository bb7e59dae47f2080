"""What a job on Dataflow is refused for: before torch is imported, a plan is stored or the service is asked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from pipelines import dataflow
from pipelines.accelerators import MACHINES, Accelerator, accelerator, cores_of
from tests.support.large_machine import make_large
from tests.support.paths import SAMPLE
from tests.support.run_command import run

ON_DATAFLOW = (
    *("--runner", "DataflowRunner", "--project", "my-project", "--region", "us-central1"),
    *("--temp_location", "gs://nowhere/tmp", "--sdk_container_image", "example/vqbeam:1"),
)
IN, OUT = ("--input", "gs://nowhere/in/*.tar"), ("--output", "gs://nowhere/out")


def without(name: str) -> tuple[str, ...]:
    at = ON_DATAFLOW.index(name)
    return ON_DATAFLOW[:at] + ON_DATAFLOW[at + 2 :]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("encode", *IN, "--output", "here"), "--output here is on this machine"),
        (("encode", "--input", "/here/*.tar", *OUT), "--input /here/*.tar is on this machine"),
        (("encode", *IN, "file:///here/*.tar", *OUT), "--input file:///here/*.tar is on this machine"),
        (("encode", *IN, *OUT, "--model", "./mine"), "--model ./mine is on this machine"),
        (("decode", *IN, *OUT, "--model", "/models/mine"), "--model /models/mine is on this machine"),
        (("generate", *IN, *OUT, "--vqgan", "mine"), "--vqgan mine is on this machine"),
        (("generate", *IN, *OUT, "--clip", "mine"), "--clip mine is on this machine"),
        (("rank", *IN, *OUT, "--clip", "mine"), "--clip mine is on this machine"),
        (("evaluate", *IN, *OUT, "--model", "emoji", "--model", "mine"), "--model mine is on this machine"),
        (("evaluate", *IN), "needs --output"),
        (("export", *IN, "--output", "here"), "--output here is on this machine"),
        (("encode", *IN, *OUT, "--streaming"), "--streaming: a job of vqbeam ends"),
        (
            ("encode", *IN, *OUT, "--accelerator", "nvidia-l4:1", "--machine_type", "n1-standard-8"),
            "--machine_type n1-standard-8 has no nvidia-l4, which comes with machines of g2-* only",
        ),
        (
            ("encode", *IN, *OUT, "--accelerator", "nvidia-l4:1", "--flexrs_goal", "COST_OPTIMIZED"),
            "FlexRS has no GPUs",
        ),
        (("encode", *IN, *OUT, "--accelerator", "nvidia-l4:1", "--device", "cpu"), "--device cpu leaves the 1 nvidia"),
        (
            ("encode", *IN, *OUT, "--accelerator", "nvidia-l4:1", "--experiments", "use_multiple_sdk_containers"),
            "starts a process for each core",
        ),
        (
            (
                *("encode", *IN, *OUT, "--accelerator", "nvidia-l4:1"),
                *("--dataflow_service_options", "worker_accelerator=type:nvidia-l4;count:2;install-nvidia-driver"),
            ),
            "--accelerator nvidia-l4:1 and --dataflow_service_options worker_accelerator=type:nvidia-l4;count:2;",
        ),
    ],
)
def test_what_workers_of_dataflow_cannot_have_is_refused(argv: tuple[str, ...], message: str) -> None:
    refused = run(*argv, *ON_DATAFLOW)
    assert refused.code == 2
    assert message in refused.err
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("--project", "--runner DataflowRunner needs --project"),
        ("--temp_location", "--runner DataflowRunner needs --temp_location gs://"),
        ("--sdk_container_image", "workers of DataflowRunner need vqbeam"),
    ],
)
def test_what_dataflow_needs_is_asked_for(left_out: str, message: str) -> None:
    refused = run("encode", *IN, *OUT, *without(left_out))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert message in refused.err


def test_a_setup_file_must_be_there() -> None:
    refused = run("encode", *IN, *OUT, *without("--sdk_container_image"), "--setup_file", "no/setup.py")
    assert (refused.code, refused.err) == (
        2,
        "vqbeam encode: no/setup.py is not there: it should bring vqbeam to the workers\n",
    )


def test_a_beam_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.dataflow", None)
    monkeypatch.setitem(sys.modules, "apitools", None)
    monkeypatch.setattr("importlib.util.find_spec", hiding("google.cloud.dataflow", "apitools"))
    refused = run("encode", *IN, *OUT, *ON_DATAFLOW)
    assert (refused.code, refused.err) == (
        2,
        "vqbeam encode: --runner DataflowRunner needs more of Beam: pip install 'apache-beam[gcp]'\n",
    )


def hiding(*names: str):
    from importlib.util import find_spec

    return lambda name, package=None: None if name in names else find_spec(name, package)


@pytest.mark.parametrize("flags", [ON_DATAFLOW, ("--runner", "FlinkRunner")], ids=["dataflow", "flink"])
def test_a_refusal_does_not_wait_for_torch_and_beam(flags: tuple[str, ...]) -> None:
    """They take seconds to import."""
    program = (
        "import sys\nfrom pipelines.__main__ import main\ncode = main(sys.argv[1:])\n"
        "print(code, 'torch' in sys.modules, 'apache_beam' in sys.modules)"
    )
    argv = ["encode", *IN, "--output", "here", *flags]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False False\n"


@pytest.mark.parametrize("flag", ["--gpu_type", "--gpus", "--worker_accelerator", "--accelerator-type", "--gpu"])
def test_what_people_type_instead_is_hinted(flag: str) -> None:
    refused = run("encode", *IN, *OUT, flag, "nvidia-l4")
    assert f"unknown flag {flag}; did you mean --accelerator?" in refused.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l4", "'l4': unknown type of GPU; did you mean nvidia-l4?"),
        ("nvidia-l40:1", "'nvidia-l40:1': unknown type of GPU; did you mean nvidia-l4?"),
        ("nvidia-l4:3", "'nvidia-l4:3': a machine has 1, 2, 4, 8 of nvidia-l4"),
        ("nvidia-l4:0", "'nvidia-l4:0': expected TYPE:COUNT such as nvidia-l4:1"),
        ("type:nvidia-l4;count:1", "expected TYPE:COUNT such as nvidia-l4:1"),
    ],
)
def test_gpus_that_do_not_exist_are_refused(text: str, message: str) -> None:
    refused = run("encode", *IN, *OUT, "--accelerator", text, *ON_DATAFLOW)
    assert refused.code == 2
    assert message in refused.err


def test_gpus_of_this_machine_are_no_accelerators(tmp_path: Path) -> None:
    refused = run("encode", *IN, "--accelerator", "nvidia-l4:1", output=tmp_path / "out")
    refused.check_refused("--accelerator is for --runner DataflowRunner; --device cuda uses the GPUs that are there")
    refused = run("encode", *IN, "--no_wait", output=tmp_path / "out")
    refused.check_refused("--no_wait is for --runner DataflowRunner")


def test_planning_needs_no_gpu_and_tells_the_machines(
    gcs_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("gs")
    fs.pipe_file(f"{gcs_bucket}/in/a.tar", (SAMPLE / "emoji-00000.tar").read_bytes())
    argv = ("--input", f"{gcs_bucket}/in/a.tar", "--output", f"{gcs_bucket}/out", "--accelerator", "nvidia-l4:1")
    planned = run("encode", *argv, "--rows_per_shard", "2", *ON_DATAFLOW, "--dry_run")
    assert planned.code == 0, planned.err
    assert "dtype       bfloat16 on cuda, batch" in planned.out
    assert planned.out.endswith("workers     6 to 25 of g2-standard-8, each with 1 nvidia-l4\n")
    assert not fs.exists(f"{gcs_bucket}/out")
    monkeypatch.setattr("models.image_tokenizer.MAX_BATCH", 1 << 60)  # so that it follows from the GPU's memory
    shown = []
    for gpus, change in (("nvidia-l4", None), ("nvidia-l4", make_large), ("nvidia-h100-80gb", make_large)):
        if change:
            change(monkeypatch, tmp_path)
        shown.append(run("encode", *argv[:4], "--accelerator", gpus, *ON_DATAFLOW, "--dry_run").out)
    assert shown[0] == shown[1]
    batches = [int(re.search(r"cuda, batch (\d+)", text)[1]) for text in shown]  # type: ignore[index]
    assert batches[2] > batches[1]


def test_a_machine_of_each_type_and_number_says_its_cores() -> None:
    assert accelerator("nvidia-l4") == Accelerator("nvidia-l4", 1)
    machines = [machine for counts in MACHINES.values() for machine in counts.values()]
    assert all(cores_of(machine) for machine in machines)
    assert [cores_of(name) for name in ("g2-standard-8", "a2-highgpu-4g", "e2-medium", None)] == [8, 48, None, None]


def test_a_model_that_tokens_name_must_be_reachable_too() -> None:
    for model in ("emoji", "hf://owner/name", "gs://nowhere/model"):
        dataflow.check_model(model, "the model")
    for model in ("/models/mine", "file:///models/mine"):
        with pytest.raises(dataflow.UsageError, match="is on this machine"):
            dataflow.check_model(model, "the model")
