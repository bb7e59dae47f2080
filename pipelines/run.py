"""Runs a job: plan or resume, launch, watch, summarise. Every launching command ends here; returns its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from models.vqgan import jax_codec
from pipelines import clusters, dask_job, dataflow, dataflow_job, planning
from pipelines.changes import tell_of_changes
from pipelines.command import JobCommand, version
from pipelines.elsewhere import runner_of
from pipelines.engines import DASK, is_local, runner_name
from pipelines.far_progress import Watched
from pipelines.keys import repeated_keys_at_the_end
from pipelines.launch import LaunchResult, local_processes, local_workers, run_pipeline
from pipelines.plan_text import describe_plan
from pipelines.process import cores
from pipelines.request import NO_MODEL, JobOptions, Settings, Task
from pipelines.screen import Expected, passed_over_lines, print_summary, progress
from pipelines.sizing import PlanRequest, shard_seconds
from pipelines.supervisor import tell_pending
from pipelines.terminal import say
from transforms import storage
from transforms.engine.beam import ProcessShards, shard_ranges
from transforms.engine.job import Job
from transforms.engine.resources import require_room
from transforms.engine.versions import versions_here
from transforms.errors import UsageError, amount
from transforms.inputs.request import InputSchema
from transforms.ledger.folder import CARD, CONFIG, CONTACT_SHEET, LAST_RUN, SUCCESS
from transforms.ledger.plan import Plan, copied_plan, segment_of, write_copy
from transforms.ledger.remove import remove_leftovers
from transforms.ledger.retry import request_rejected, withdraw_requests
from transforms.ledger.seal import job_id
from transforms.ledger.stored_shards import StoredShards, rows_of
from transforms.ledger.totals import pending_shards, settle
from transforms.ledger.types import Shard
from transforms.outputs.card import rows_in, write_card
from transforms.outputs.contact_sheet import write_contact_sheet
from transforms.outputs.layout import main_folders

RESUMES = "Finished shards are kept; the same command resumes"


def run_job(command: JobCommand, job: JobOptions, task: Task, beam_args: list[str], scratch: str) -> int:
    """Run what is pending of a job; returns the exit code. Raises `UsageError`, `ShardFailed` and `RunFailed`."""
    local = is_local(beam_args)
    if local:  # Beam's own flag may say how many workers
        workers = local_workers(beam_args, job.settings.workers)
        job = replace(job, settings=replace(job.settings, workers=workers))
    request = PlanRequest(command, job, task, local)
    _check_reachable(request, beam_args)
    if local and task.backend != "torch":  # found missing by a worker, it would fail every shard
        jax_codec.packages()
    if job.overwrite and (job.extend or job.retry_rejected):
        raise UsageError("--overwrite starts over: it cannot be combined with --extend or --retry_rejected")
    stored = None if job.overwrite else planning.find_plan(request)
    if stored is None and (job.extend or job.retry_rejected):
        raise UsageError(f"{job.output} holds no plan yet: run once without --extend and --retry_rejected")
    if stored is not None and not job.extend and task.planned is None:
        tell_of_changes(request, stored)
    if job.dry_run:
        return _show(request, stored, beam_args)
    remove_leftovers(job.output, main_folders())
    plan = _ready_plan(request, stored)
    if job.config:
        storage.put_bytes(job.config.encode(), storage.join(job.output, CONFIG))
    pending = pending_shards(job.output, plan.shards)
    code, reason = 0, ""
    if pending:
        storage.delete(storage.join(job.output, SUCCESS))
        if task.concluded:
            storage.delete(storage.join(job.output, task.concluded))
        result = _launch(request, plan, pending, beam_args, scratch)
        if result.stop_signal is not None or result.state == "SUBMITTED":
            return result.exit_code
        code, reason = result.exit_code, result.reason
    outcome = settle(job.output, plan.shards, job.max_error_rate, look=True)
    if reason:
        name = PipelineOptions(beam_args).view_as(StandardOptions).runner
        kept = "The job failed after every shard was done" if outcome.well else RESUMES
        say(f"{name}: {reason}. {kept}", file=sys.stderr)
    keys = told = None
    if outcome.well:
        main = task.work(plan, job.settings.over(plan)).main
        if not write_card(job.output, main):
            say(
                f"{job.output}/{CARD} stays as it is: `load_dataset` reads the folder if the card has `configs` with "
                f"`data_files: {rows_in(main)}`",
                file=sys.stderr,
            )
        if task.conclude:
            told = task.conclude(plan, outcome.totals)
        keys = repeated_keys_at_the_end(request, plan, outcome.totals.rows_written)
    look = _look(job, task) if job.kept else None
    if not (task.quiet and outcome.well):
        print_summary(command, job.output, plan, outcome, look, keys, already=not pending)
    if told:
        say(told)
    if task.written and job.contact_sheet:
        write_contact_sheet(job.output, task.written.layout)
    return (0 if reason else code) if outcome.well else 1


def _show(request: PlanRequest, stored: Plan | None, beam_args: list[str]) -> int:
    job = request.job
    if stored is None:
        plan, shards = planning.make_plan(request)
        say(describe_plan(plan, shards, request))
        _show_workers(beam_args, len(shards))
        return 0
    planned: Sequence[Shard] = StoredShards(job.output, stored)
    if job.extend:
        stored, planned = planning.extend_plan(request, stored)
    if planned:
        say(describe_plan(stored, planned, request))
    done = stored.shards - len(pending_shards(job.output, stored.shards))
    added = len(planned) if job.extend else 0
    say(f"stored plan {amount(stored.shards, 'shards')}, {done:,} of them done; {added:,} to be added")
    _show_workers(beam_args, stored.shards - done + added)
    return 0


def _show_workers(beam_args: list[str], pending: int) -> None:
    """Tell which machines Dataflow would be asked for."""
    if runner_name(beam_args) == dataflow.RUNNER:
        say(f"workers     {dataflow.describe_workers(beam_args, pending)}")


def _ready_plan(request: PlanRequest, stored: Plan | None) -> Plan:
    job = request.job
    if stored is None:
        plan, shards = planning.make_plan(request)
        for line in passed_over_lines(plan):
            say(line, file=sys.stderr)
        if job.overwrite:
            planning.remove_output(job.output, shards)
        return planning.store_plan(request, plan, shards)
    if job.retry_rejected:
        count = request_rejected(job.output)
        if count:
            say(f"Doing {amount(count, 'shards')} that rejected rows again", file=sys.stderr)
    else:
        withdraw_requests(job.output)
    if copied_plan(job.output) is None:  # damaged
        write_copy(job.output, stored)
    if job.extend:
        stored, shards = planning.extend_plan(request, stored)
        if shards:
            storage.delete(storage.join(job.output, SUCCESS))
            stored = planning.store_plan(request, stored, shards)
        added = segment_of(shards).sources if shards else 0
        say(f"{amount(added, 'new files')}, {amount(len(shards), 'new shards')}", file=sys.stderr)
    return stored


def _launch(request: PlanRequest, plan: Plan, pending: list[int], beam_args: list[str], scratch: str) -> LaunchResult:
    """Run the shards that have no mark. Raises `RunFailed`."""
    options, local, output = request.job, request.local, request.job.output
    settings = options.settings.over(plan)
    if not local and settings.device == "auto":  # the launcher's does not count
        settings = replace(settings, device=str(plan.settings["device"]))
    processes = workers = settings.workers or (default_workers(settings.device) if local else 1)
    expected = Expected(
        plan.shards, plan.shards - len(pending), _rows_pending(request, plan, pending), request.command.unit
    )
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
        seconds = shard_seconds(request.task, plan)
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
    with progress(scratch, expected) if local else nullcontext():
        watched = Watched(output, expected)
        if on_dataflow:
            result = dataflow_job.run(build, beam_args, expected, wait=not options.no_wait)
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


def _look(job: JobOptions, task: Task) -> str:
    """What the summary suggests to look at."""
    if task.written is None:
        return task.look
    if job.contact_sheet:
        return storage.join(job.output, CONTACT_SHEET)
    return storage.join(job.output, task.written.layout.images_folder)


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


def _rows_pending(request: PlanRequest, plan: Plan, pending: list[int]) -> int | None:
    if planning.has_own_number(plan.schema.get("options", ())):
        return None
    rows = rows_of(request.job.output, plan, pending)
    return None if rows is None else rows * request.task.images_per_row


def _check_reachable(request: PlanRequest, beam_args: list[str]) -> None:
    """The runner must be there. Workers elsewhere see no files of this machine; `dataflow` has looked at the flags."""
    if runner_name(beam_args) == dataflow.RUNNER:
        for model in request.task.models:
            if model.source != NO_MODEL:
                dataflow.check_model(model.source, f"the model {model.source}")
    elif not request.local:
        runner_of(str(PipelineOptions(beam_args).view_as(StandardOptions).runner))


def default_workers(device: str) -> int:
    """One per GPU, else one: the threads of one worker use all cores of a CPU."""
    if device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
