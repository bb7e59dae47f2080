"""Runs the shards of a plan that are pending: makes the job of the workers, and has a runner do it while it is watched.

`pipelines.run` imports this once a job goes ahead: torch and Beam take seconds.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace

import apache_beam as beam

from pipelines import clusters, dask_job, dataflow, dataflow_job, planning
from pipelines.command import version
from pipelines.engines import DASK, runner_name
from pipelines.far_progress import Watched
from pipelines.launch import run_pipeline
from pipelines.launch_result import LaunchResult
from pipelines.local_workers import default_workers, local_processes, local_workers
from pipelines.process import cores
from pipelines.progress import progress
from pipelines.request import Settings
from pipelines.sample import Expected
from pipelines.sizing import PlanRequest, has_own_number, shard_seconds
from pipelines.supervisor import tell_pending
from pipelines.terminal import say
from transforms import storage
from transforms.engine.beam import ProcessShards, shard_ranges
from transforms.engine.job import Job
from transforms.engine.resources import require_room
from transforms.engine.versions import versions_here
from transforms.errors import amount
from transforms.inputs.request import InputSchema
from transforms.ledger.folder import LAST_RUN
from transforms.ledger.plan import Plan
from transforms.ledger.seal import job_id
from transforms.ledger.stored_shards import rows_of


def run_pending(
    request: PlanRequest, plan: Plan, pending: list[int], beam_args: list[str], scratch: str
) -> LaunchResult:
    """Run the shards that have no mark. Raises `RunFailed`."""
    options, local, output = request.job, request.local, request.job.output
    settings = options.settings.over(plan)
    if not local and settings.device == "auto":  # the launcher's does not count
        settings = replace(settings, device=str(plan.settings["device"]))
    processes = workers = settings.workers or (default_workers(settings.device) if local else 1)
    expected = _expected(request, plan, pending, settings.batch_size)
    if local:
        processes = local_processes(beam_args, local_workers(beam_args, workers))
        require_room(scratch, min(workers, len(pending)))
        if plan.settings["device"] == "cpu":
            _warn_of_waiting(processes, settings.threads)
    job = Job(
        work=request.task.work(plan, settings),
        output=output,
        schema=InputSchema.from_json(plan.schema),
        provenance=planning.provenance(request, plan),
        version=version(otherwise="unknown"),
        device=settings.device,
        max_error_rate=options.max_error_rate,
        max_image_bytes=request.task.max_image_bytes,
        on_fetch_error=plan.choice("input.on_fetch_error"),
        decode_threads=_decode_threads(request, settings),
        processes=processes,
        temp_dir=scratch if local else options.temp_dir,
        scratch=scratch if local else None,
        take_changed=options.retry_rejected,
        shard_timeout=options.shard_timeout,
        image_feature=plan.choice("image_feature"),
        versions={} if local or options.allow_other_versions else versions_here(),
        seal=job_id(plan.fingerprint) if plan.choice("sealed") else "",
    )
    tell_pending(len(pending))
    if expected.shards_before:
        done = f"{expected.shards_before:,} of {amount(plan.shards, 'shards')}"
        say(f"Resuming: {done} done already", file=sys.stderr)

    on_dataflow = runner_name(beam_args) == dataflow.RUNNER
    if on_dataflow:
        seconds = shard_seconds(request.task, plan, request.job)
        beam_args = dataflow.for_plan(
            beam_args,
            job_name=f"vqbeam-{request.command.name.split(':')[0]}-{job_id(plan.fingerprint)[:8]}",
            pending=len(pending),
            seconds=dataflow.element_seconds(seconds, options.shard_timeout),
        )

    def build(pipeline: beam.Pipeline) -> None:
        ranges = pipeline | "Plan" >> beam.Create(shard_ranges(pending), reshuffle=False)
        numbers = ranges | "Shards" >> beam.FlatMap(lambda pair: range(*pair)).with_output_types(int)
        _ = numbers | ProcessShards(job)

    if not local:
        beam_args = clusters.for_plan(beam_args, len(pending))
    seen = local and storage.is_local(output)  # by `finish` of the pipeline as well
    before = _last_run(output) if seen or not local else None
    with ExitStack() as stack:
        sinks = stack.enter_context(options.monitoring.opened(request.command.name, output))
        if local:
            stack.enter_context(progress(scratch, expected, sinks=sinks))
        watched = Watched(output, expected, sinks=sinks)
        if on_dataflow:
            result = dataflow_job.run(build, beam_args, watched, wait=not options.no_wait)
        elif runner_name(beam_args) == DASK:
            result = dask_job.run(job, pending, beam_args, scratch=scratch, watched=watched)
        else:
            shown = None if local else watched
            result = run_pipeline(build, beam_args, workers=workers, scratch=scratch, watched=shown)
    if seen and result.stop_signal is None and _last_run(output) == before:
        say(
            f"warning: the account of this run could not be written to {output}/{LAST_RUN}; the marks of its shards "
            "are there, and reasons of failed shards may be those of an earlier run",
            file=sys.stderr,
        )
    if result.reason and _last_run(output) == before:  # its reasons of failed shards would be taken for this run's
        storage.delete(storage.join(output, LAST_RUN))
    return result


def _decode_threads(request: PlanRequest, settings: Settings) -> int:
    """0 leaves them to a worker elsewhere: those that feed a GPU use the cores that it finds, and decide no output."""
    asked = request.job
    open_there = not request.local and not asked.settings.threads and not asked.worker_cores
    return 0 if open_there and settings.device.startswith("cuda") else settings.threads


def _warn_of_waiting(workers: int, threads: int) -> None:
    """A plan keeps its threads per worker, on which rounding depends; a later run may have other workers or cores."""
    here = cores()
    if workers * threads <= here:
        return
    better = (
        f"--workers {here // threads}" if threads <= here else f"--threads_per_worker {here}, which may round otherwise"
    )
    say(
        f"warning: {amount(workers, 'workers')} with {amount(threads, 'threads')} each wait for one another on "
        f"{amount(here, 'cores')}, and can be many times slower: give {better}",
        file=sys.stderr,
    )


def _last_run(output: str) -> storage.FileInfo | None:
    """The account of a run that is in the folder now."""
    try:
        return storage.stat(storage.join(output, LAST_RUN))
    except FileNotFoundError:
        return None


def _expected(request: PlanRequest, plan: Plan, pending: list[int], batch_size: int) -> Expected:
    """What is known of a run of these shards."""
    before, unit = plan.shards - len(pending), request.command.unit
    own_number = has_own_number(plan.schema.get("options", ()))
    rows = None if own_number else rows_of(request.job.output, plan, pending)
    if rows is None:
        return Expected(plan.shards, before, None, unit)
    made = rows * request.task.images_per_row
    places = -(-made // batch_size) * batch_size
    return Expected(plan.shards, before, int(made.sum()), unit, int(places.sum()))
