"""Runs a job: plan or resume, launch, watch, summarise. Every launching command ends here; returns its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from models.vqgan import jax_codec
from pipelines import beam_flags, dataflow, planning
from pipelines.changes import tell_of_changes
from pipelines.command import JobCommand
from pipelines.dry_run import PLANNING, dry_run
from pipelines.engines import is_local, runner_name
from pipelines.keys import repeated_keys_at_the_end
from pipelines.lean_imports import resting_collector, without_optional
from pipelines.local_workers import local_workers
from pipelines.planned_models import NO_MODEL
from pipelines.request import JobOptions, Task
from pipelines.screen import passed_over_lines, print_summary
from pipelines.sizing import PlanRequest
from pipelines.stages import stage
from pipelines.supervisor import is_supervised
from pipelines.terminal import say
from transforms import storage
from transforms.errors import UsageError, amount
from transforms.ledger.folder import CARD, CONFIG, CONTACT_SHEET, SUCCESS
from transforms.ledger.plan import Plan, copied_plan, segment_of, write_copy
from transforms.ledger.remove import remove_leftovers
from transforms.ledger.retry import request_rejected, withdraw_requests
from transforms.ledger.stored_shards import StoredShards
from transforms.ledger.totals import pending_shards, settle
from transforms.outputs.card import rows_in, write_card
from transforms.outputs.contact_sheet import write_contact_sheet
from transforms.outputs.layout import main_folders

if TYPE_CHECKING:
    from pipelines.launch_result import LaunchResult

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
    if job.report and job.no_wait:
        raise UsageError("--no_wait leaves the job before there is anything to report: `vqbeam report` writes it later")
    with stage("Looking into the output folder", short=True):
        stored = None if job.overwrite else planning.find_plan(request)
    if stored is None and (job.extend or job.retry_rejected):
        raise UsageError(f"{job.output} holds no plan yet: run once without --extend and --retry_rejected")
    if stored is not None and not job.extend and task.planned is None:
        with stage("Comparing the input with the plan", short=True):
            tell_of_changes(request, stored)
    if stored is None:
        _check_weights(task)
    if job.dry_run:
        return dry_run(request, stored, beam_args)
    remove_leftovers(job.output, main_folders())
    plan = _ready_plan(request, stored)
    if job.config:
        storage.put_bytes(job.config.encode(), storage.join(job.output, CONFIG))
    with stage("Looking for finished shards", short=True):
        pending = pending_shards(job.output, plan.shards)
    code, reason = 0, ""
    if pending:
        if stored is not None:
            _check_weights(task)
        storage.delete(storage.join(job.output, SUCCESS))
        if task.concluded:
            storage.delete(storage.join(job.output, task.concluded))
        result = _runs_pending(request.local)(request, plan, pending, beam_args, scratch)
        if result.stop_signal is not None or result.state == "SUBMITTED":
            return result.exit_code
        code, reason = result.exit_code, result.reason
    with stage("Adding up what is done", short=True):
        outcome = settle(job.output, plan.shards, job.max_error_rate, look=True)
    if reason:
        name = beam_flags.options(beam_args).runner
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
    if job.contact_sheet:
        with stage("Drawing the contact sheet", short=True):
            _draw_contact_sheet(job, task, plan, outcome.totals.rows_written)
    if job.report:
        from pipelines.report import report_at_the_end

        report_at_the_end(job.output, plan, job.model_cache)
    return (0 if reason else code) if outcome.well else 1


def _runs_pending(local: bool) -> Callable[..., LaunchResult]:
    """What runs shards: it imports torch and Beam, which take seconds. A program that calls us may want all of Beam."""
    lean = local and is_supervised()
    with stage("Loading Beam"), resting_collector(), without_optional() if lean else nullcontext():
        from pipelines.pending import run_pending
    return run_pending


def _check_weights(task: Task) -> None:
    """Raise `CheckpointError` for weights that do not fit their network; this takes torch."""
    with stage("Loading torch, checking the models"):
        with resting_collector():
            import torch  # noqa: F401
        for model in task.models:
            model.check()


def _ready_plan(request: PlanRequest, stored: Plan | None) -> Plan:
    job = request.job
    if stored is None:
        with stage(PLANNING):
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
        with stage(PLANNING):
            stored, shards = planning.extend_plan(request, stored)
        if shards:
            storage.delete(storage.join(job.output, SUCCESS))
            stored = planning.store_plan(request, stored, shards)
        added = segment_of(shards).sources if shards else 0
        say(f"{amount(added, 'new files')}, {amount(len(shards), 'new shards')}", file=sys.stderr)
    return stored


def _draw_contact_sheet(job: JobOptions, task: Task, plan: Plan, images: int) -> None:
    if task.written:
        settings, shards = job.settings.over(plan), StoredShards(job.output, plan)
        originals = task.originals(plan, settings, shards) if task.originals else None
        write_contact_sheet(job.output, task.written.layout, images, originals=originals)
    elif task.kept:
        write_contact_sheet(job.output, task.kept.layout, images, open_image=task.kept.open_image, by_score=True)


def _look(job: JobOptions, task: Task) -> str:
    """What the summary suggests to look at."""
    if job.contact_sheet:
        return storage.join(job.output, CONTACT_SHEET)
    if task.written is None:
        return task.look
    return storage.join(job.output, task.written.layout.images_folder)


def _check_reachable(request: PlanRequest, beam_args: list[str]) -> None:
    """The runner must be there. Workers elsewhere see no files of this machine; `dataflow` has looked at the flags."""
    if runner_name(beam_args) == dataflow.RUNNER:
        for model in request.task.models:
            if model.source != NO_MODEL:
                dataflow.check_model(model.source, f"the model {model.source}")
    elif not request.local:
        from pipelines.elsewhere import runner_of

        runner_of(str(beam_flags.options(beam_args).runner))
