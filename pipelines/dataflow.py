"""What a job on Dataflow needs: refuses what its workers cannot have, and fills in options that the user left open.

Runs before models are opened and anything is stored, and imports no torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from models.find import EMBEDDED
from pipelines import beam_flags
from pipelines.accelerators import Accelerator, asked_of_service, cores_of
from transforms import storage
from transforms.errors import UsageError

RUNNER = "dataflowrunner"
MODELS = ("model", "vqgan", "clip")
ONE_PROCESS = "no_use_multiple_sdk_containers"  # else Dataflow starts a process for each core of a worker
MANY_PROCESSES = "use_multiple_sdk_containers"
SHARDS_AT_ONCE = "number_of_worker_harness_threads"
ELEMENT_MINUTES = "element_processing_timeout_minutes"
SHARDS_AT_START = 15  # for each GPU of the workers that a job begins with: about an hour
LEAST_SHARDS = 4  # for each GPU of a worker: it takes some minutes to start
MOST_WORKERS = 1000
SLOWER = 20  # a shard may take so many times longer than it was planned for
NEEDS_VQBEAM = (
    "workers of {runner} need vqbeam: give --sdk_container_image IMAGE with vqbeam installed in it, or --setup_file "
    "with the setup.py of a checkout of vqbeam, or --extra_package with a wheel or sdist of it"
)


def check(args: argparse.Namespace, beam_args: list[str]) -> None:
    """Raise `UsageError` for a job that Dataflow cannot do, and for flags that are of Dataflow only."""
    asked: Accelerator | None = getattr(args, "accelerator", None)
    if not beam_args or not runs_on(options := beam_flags.options(beam_args)):
        if asked:
            raise UsageError("--accelerator is for --runner DataflowRunner; --device cuda uses the GPUs that are there")
        if getattr(args, "no_wait", False):
            raise UsageError("--no_wait is for --runner DataflowRunner, whose jobs go on by themselves")
        return
    _check_places(args)
    _check_options(options)
    gpus = _gpus(asked, options)
    if gpus and args.device == "cpu":
        raise UsageError(f"--device cpu leaves the {gpus.count} {gpus.kind} of each worker idle: leave one of them out")
    if not getattr(args, "dry_run", False):
        _check_extra()


def settle(args: argparse.Namespace, beam_args: list[str]) -> list[str]:
    """The Beam flags of a command line that `check` has let pass, with those that follow from `--accelerator`.

    With GPUs, `args.device` becomes cuda; `args.worker_cores` are the cores of a worker, `args.worker_gpu` is
    one of its GPUs. A command line for another runner is returned as it is.
    """
    if not beam_args or not runs_on(options := beam_flags.options(beam_args)):
        return beam_args
    asked: Accelerator | None = getattr(args, "accelerator", None)
    gpus = _gpus(asked, options)
    added = [*(_for_gpus(gpus, asked, options) if gpus else _for_cores(options))]
    if gpus and args.device == "auto":
        args.device = "cuda"
    args.worker_cores = worker_cores(beam_flags.options([*beam_args, *added]))
    args.worker_gpu = gpus.gpu if gpus else None
    return [*beam_args, *added]


def runs_on(options: argparse.Namespace) -> bool:
    """Whether these are options of a job on Dataflow."""
    name = (options.runner or "").rpartition(".")[2].lower()
    return name in (RUNNER, RUNNER.removesuffix("runner"))


def worker_cores(options: argparse.Namespace) -> int:
    """The cores that one process of a worker has."""
    if not has_experiment(options, ONE_PROCESS):
        return 1
    return cores_of(options.machine_type) or 1


def has_experiment(options: argparse.Namespace, name: str) -> bool:
    return name in (options.experiments or ())


def for_plan(beam_args: list[str], *, job_name: str, pending: int, seconds: float) -> list[str]:
    """The Beam flags with those that follow from the plan: `pending` shards of about `seconds` each are to be done."""
    options = beam_flags.options(beam_args)
    added = []
    first, most = workers_for(options, pending)
    if options.num_workers is None:
        added.append(f"--num_workers={first}")
    if options.max_num_workers is None:
        added.append(f"--max_num_workers={most}")
    timed = ELEMENT_MINUTES in options  # not in the oldest Beam that vqbeam works with
    if timed and options.element_processing_timeout_minutes is None:
        added.append(f"--{ELEMENT_MINUTES}={int(-(-seconds // 60))}")
    if options.job_name is None:
        added.append(f"--job_name={job_name}")
    assert options.number_of_worker_harness_threads, "settled before"
    return [*beam_args, *added]


def workers_for(options: argparse.Namespace, pending: int) -> tuple[int, int]:
    """The number of workers that a job begins with, and its maximum: an hour of shards each, and a quarter of one."""
    at_once = shards_at_once(options)
    most = options.max_num_workers or min(MOST_WORKERS, max(1, pending // (LEAST_SHARDS * at_once)))
    first = options.num_workers or max(1, min(most, pending // (SHARDS_AT_START * at_once)))
    return first, max(first, most) if options.max_num_workers is None else most


def shards_at_once(options: argparse.Namespace) -> int:
    """How many shards a worker does at once."""
    threads = options.number_of_worker_harness_threads or 1
    processes = 1 if has_experiment(options, ONE_PROCESS) else cores_of(options.machine_type)
    return int(threads) * (processes or 1)


def describe_workers(beam_args: list[str], pending: int) -> str:
    """ "7 to 25 of g2-standard-8, each with 1 nvidia-l4", for the text of a plan."""
    options = beam_flags.options(beam_args)
    first, most = workers_for(options, pending)
    gpus = asked_of_service(options.dataflow_service_options)
    machine = options.machine_type or "Dataflow's default machine"
    count = f"{first}" if first == most else f"{first} to {most}"
    return f"{count} of {machine}" + (f", each with {gpus.count} {gpus.kind}" if gpus else "")


def element_seconds(shard_seconds: float, shard_timeout: float) -> float:
    """How long a worker may be at one shard before it is taken to hang: longer than any shard."""
    return max(2 * shard_timeout, SLOWER * shard_seconds)


def _gpus(asked: Accelerator | None, options: argparse.Namespace) -> Accelerator | None:
    """The GPUs of a worker, by our flag or by Dataflow's own option."""
    given = asked_of_service(options.dataflow_service_options)
    if asked and given and asked != given:
        raise UsageError(
            f"--accelerator {asked.kind}:{asked.count} and --dataflow_service_options {given.service_option} differ: "
            "give one"
        )
    gpus = asked or given
    if gpus is None:
        return None
    if options.flexrs_goal:
        raise UsageError(f"--flexrs_goal {options.flexrs_goal}: FlexRS has no GPUs; leave it or --accelerator out")
    machine = options.machine_type
    if machine and gpus.machine and not machine.startswith(gpus.family):
        raise UsageError(
            f"--machine_type {machine} has no {gpus.kind}, which comes with machines of {gpus.family}* only: leave it "
            f"out for {gpus.machine}"
        )
    if has_experiment(options, MANY_PROCESSES):
        raise UsageError(
            f"--experiments {MANY_PROCESSES} starts a process for each core, each with a model on every GPU: leave it "
            "out with GPUs"
        )
    return gpus


def _for_gpus(gpus: Accelerator, asked: Accelerator | None, options: argparse.Namespace) -> Iterator[str]:
    """One process a worker, which does one shard on each GPU."""
    if asked_of_service(options.dataflow_service_options) is None and asked:
        yield f"--dataflow_service_options={asked.service_option}"
    if not options.machine_type and gpus.machine:
        yield f"--machine_type={gpus.machine}"
    if not has_experiment(options, ONE_PROCESS):
        yield f"--experiments={ONE_PROCESS}"
    if not options.number_of_worker_harness_threads:
        yield f"--{SHARDS_AT_ONCE}={gpus.count}"


def _for_cores(options: argparse.Namespace) -> Iterator[str]:
    """One shard at once in a process, of which Dataflow starts one for each core."""
    if not options.number_of_worker_harness_threads:
        yield f"--{SHARDS_AT_ONCE}=1"


def _check_options(options: argparse.Namespace) -> None:
    if not options.project:
        raise UsageError("--runner DataflowRunner needs --project, the Google Cloud project that pays")
    if not (options.region or os.environ.get("CLOUDSDK_COMPUTE_REGION") or shutil.which("gcloud")):
        raise UsageError("--runner DataflowRunner needs --region, such as us-central1")
    for name in ("temp_location", "staging_location"):
        value = getattr(options, name)
        if value and not value.startswith("gs://"):
            raise UsageError(f"--{name} {value}: Dataflow needs a folder on gs://")
    if not (options.temp_location or options.staging_location):
        raise UsageError("--runner DataflowRunner needs --temp_location gs://..., for what Beam hands to its workers")
    image = options.sdk_container_image
    if not any((image, options.setup_file, options.extra_packages, options.requirements_file)):
        raise UsageError(NEEDS_VQBEAM.format(runner="DataflowRunner"))
    for file in filter(None, (options.setup_file, *(options.extra_packages or ()), options.requirements_file)):
        if "://" not in file and not Path(file).is_file():
            raise UsageError(f"{file} is not there: it should bring vqbeam to the workers")


def _check_places(args: argparse.Namespace) -> None:
    """Workers see no files of this machine."""
    inputs = [("--input", pattern) for pattern in args.patterns]
    for flag, uri in [("--output", args.output), *inputs]:
        if storage.is_local(uri):
            raise UsageError(f"{flag} {uri} is on this machine, where the workers of Dataflow cannot see it: use gs://")
    named = [(name, getattr(args, name, None)) for name in MODELS]
    named += [(name, value) for said in getattr(args, "models", None) or () for name, value in said.items()]
    for name, model in named:
        if name in MODELS and model:
            check_model(str(model), f"--{name} {model}")


def check_model(model: str, told: str) -> None:
    """Raise `UsageError` if workers cannot find a model by its name."""
    if model not in EMBEDDED and ("://" not in model or storage.is_local(model)):
        raise UsageError(
            f"{told} is on this machine, where the workers of Dataflow cannot see it: copy it to a bucket and name it "
            "as gs://..., or use hf://"
        )


def _check_extra() -> None:
    """Raise `UsageError` unless Beam can talk to Dataflow."""
    package = importlib.util.find_spec("apache_beam")
    assert package is not None, "Beam has read its flags"
    assert package.origin
    source = Path(package.origin).parent / "runners" / "dataflow" / "internal" / "apiclient.py"
    needed = "apitools" if "from apitools" in source.read_text(encoding="utf-8") else "google.cloud.dataflow"
    try:
        found = importlib.util.find_spec(needed)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UsageError("--runner DataflowRunner needs more of Beam: pip install 'apache-beam[gcp]'")
