"""Runs a planned job: resume or plan, launch, watch, summarise, and the exit code. Encode and decode both end here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import apache_beam as beam

from pipelines import planning
from pipelines.flags import cores
from pipelines.launch import is_local, local_processes, local_workers, run_pipeline
from pipelines.planning import PlanRequest
from pipelines.scratch import scratch_folder
from pipelines.screen import Expected, Progress
from pipelines.summary import print_summary
from transforms import storage
from transforms.engine.beam import ProcessShards, shard_ranges
from transforms.engine.job import Job
from transforms.engine.resources import require_room
from transforms.errors import RunFailed, UsageError, amount
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan, load_shards, rows_of, segment_of
from transforms.ledger.totals import pending_shards, settle


@dataclass(frozen=True)
class RunOptions:
    """What a command does with the output folder before and after the work."""

    overwrite: bool
    extend: bool
    retry_rejected: bool
    dry_run: bool
    max_error_rate: float
    temp_dir: str | None
    unit: str
    look: str  # a command to see the result, for the end of the summary


MakeJob = Callable[[Plan], Job]


def run_job(request: PlanRequest, options: RunOptions, make_job: MakeJob, beam_args: list[str]) -> int:
    """Do what is pending of a job; returns the exit code. Raises `UsageError`, `ShardFailed` and `RunFailed`."""
    _check_reachable(request, beam_args)
    if options.overwrite and (options.extend or options.retry_rejected):
        raise UsageError("--overwrite starts over: it cannot be combined with --extend or --retry_rejected")
    stored = None if options.overwrite else planning.find_plan(request)
    if stored is None and (options.extend or options.retry_rejected):
        raise UsageError(f"{request.output} holds no plan yet: run once without --extend and --retry_rejected")
    if options.dry_run:
        return _show(request, stored, options.extend)
    plan = _ready_plan(request, stored, options)
    pending = pending_shards(request.output, plan.shards)
    if pending:
        storage.delete(OutputFolder(request.output).success)
    return _work(request, options, plan, pending, make_job(plan), beam_args)


def _show(request: PlanRequest, stored: Plan | None, extend: bool) -> int:
    if stored is None:
        plan, shards = planning.make_plan(request)
        print(planning.describe_plan(plan, shards, request))
        return 0
    shards = planning.extend_plan(request, stored) if extend else load_shards(request.output, stored)
    if shards:
        print(planning.describe_plan(stored, shards, request))
    done = stored.shards - len(pending_shards(request.output, stored.shards))
    added = len(shards) if extend else 0
    print(f"stored plan {amount(stored.shards, 'shards')}, {done:,} of them done; {added:,} to be added")
    return 0


def _ready_plan(request: PlanRequest, stored: Plan | None, options: RunOptions) -> Plan:
    if stored is None:
        plan, shards = planning.make_plan(request)
        if options.overwrite:
            planning.remove_output(request.output, shards)
        return planning.store_plan(request, plan, shards)
    if options.retry_rejected:
        count = planning.undo_rejected(request.output)
        print(f"Doing {amount(count, 'shards')} that rejected rows again", file=sys.stderr)
    if options.extend:
        shards = planning.extend_plan(request, stored)
        if shards:
            storage.delete(OutputFolder(request.output).success)
            stored = planning.store_plan(request, stored, shards)
        added = segment_of(shards).sources if shards else 0
        print(f"{amount(added, 'new files')}, {amount(len(shards), 'new shards')}", file=sys.stderr)
    return stored


def _work(
    request: PlanRequest, options: RunOptions, plan: Plan, pending: list[int], job: Job, beam_args: list[str]
) -> int:
    local = is_local(beam_args)
    workers = local_workers(beam_args, request.run.workers, job.processes) if local else 1
    with scratch_folder(options.temp_dir) as scratch:
        if local:
            if pending:
                require_room(scratch, min(workers, len(pending)))
            job = replace(job, scratch=scratch, temp_dir=scratch, processes=local_processes(beam_args, workers))
            if pending and plan.settings["device"] == "cpu":
                _warn_of_waiting(job.processes, job.decode_threads)
        shards_before = plan.shards - len(pending)
        if shards_before and pending:
            print(f"Resuming: {shards_before:,} of {amount(plan.shards, 'shards')} done already", file=sys.stderr)
        result = None
        if pending:
            expected = Expected(plan.shards, shards_before, _rows_pending(request, plan, pending), options.unit)

            def build(pipeline: beam.Pipeline) -> None:
                ranges = pipeline | "Plan" >> beam.Create(shard_ranges(pending), reshuffle=False)
                _ = ranges | "Shards" >> beam.FlatMap(lambda pair: range(*pair)) | ProcessShards(job)

            seen = local and storage.is_local(request.output)  # by `_finish` of the pipeline as well
            before = _last_run(request.output) if seen else None
            with Progress(scratch, expected) if local else nullcontext():
                result = run_pipeline(build, beam_args, workers=workers, scratch=scratch)
            if result.stop_signal is not None or result.state == "SUBMITTED":
                return result.exit_code
            if seen and _last_run(request.output) == before:
                raise RunFailed(
                    f"the end of the run could not be written to {request.output}: what is finished is kept; once the "
                    "folder takes files again, the same command goes on"
                )
    return _conclude(request, options, plan, result.exit_code if result else 0, already=not pending)


def _warn_of_waiting(workers: int, threads: int) -> None:
    """A plan keeps its threads a worker, on which rounding depends, where a later run has other workers or cores."""
    here = cores()
    if workers * threads <= here:
        return
    better = (
        f"--workers {here // threads}" if threads <= here else f"--threads_per_worker {here}, which may round otherwise"
    )
    print(
        f"warning: {amount(workers, 'workers')} with {amount(threads, 'threads')} each wait for one another on "
        f"{amount(here, 'cores')}, and can be many times slower: give {better}",
        file=sys.stderr,
    )


def _last_run(output: str) -> storage.FileInfo | None:
    """Which account of a run is in the folder now."""
    try:
        return storage.stat(OutputFolder(output).last_run)
    except FileNotFoundError:
        return None


def _rows_pending(request: PlanRequest, plan: Plan, pending: list[int]) -> int | None:
    if planning.has_own_number(plan.schema.get("options", ())):
        return None
    rows = plan.rows if len(pending) == plan.shards else rows_of(request.output, plan, pending)
    return None if rows is None else rows * request.pictures_per_row


def _conclude(request: PlanRequest, options: RunOptions, plan: Plan, code: int, *, already: bool) -> int:
    outcome = settle(request.output, plan.shards, options.max_error_rate)
    print_summary(request.output, plan, outcome, options.unit, options.look, already=already)
    return code if outcome.well else 1


def _check_reachable(request: PlanRequest, beam_args: list[str]) -> None:
    """Workers on other machines see no files of this one."""
    if is_local(beam_args) or not any("dataflow" in arg.lower() for arg in beam_args):
        return
    for flag, uri in [("--output", request.output), *(("--input", pattern) for pattern in request.input.patterns)]:
        if storage.is_local(uri):
            raise UsageError(f"{flag} {uri} is on this machine, where the workers of Dataflow cannot see it: use gs://")


def default_workers(device: str) -> int:
    """One a GPU, else one: a CPU's cores are used by the threads of one worker."""
    if device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
