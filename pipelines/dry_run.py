"""What --dry_run prints: the plan, what is left of it, and how long that will take and how large it will be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import dataflow, planning
from pipelines.engines import runner_name
from pipelines.forecast import ACCURACY, MEASURED, RECORDED, START_SECONDS, Forecast, Work, forecast
from pipelines.plan_text import describe_plan
from pipelines.sizing import PlanRequest, has_own_number
from pipelines.stages import stage
from pipelines.status import duration
from pipelines.terminal import say
from transforms.errors import amount, size_text
from transforms.inputs.plan import PlannedShards
from transforms.ledger.plan import Plan, segment_of
from transforms.ledger.stored_shards import StoredShards, rows_of
from transforms.ledger.sums import Totals
from transforms.ledger.totals import pending_shards, total_of
from transforms.ledger.types import Shard

PLANNING = "Listing the input, planning the shards"


@dataclass(frozen=True)
class Outlook:
    """A plan, its `shards` to describe, the numbers of shards that are `stored`, `done` and `added`, and what is left.

    `totals` add up what is done.
    """

    plan: Plan
    shards: Sequence[Shard]
    stored: int
    done: int
    added: int
    work: Work
    totals: Totals


def dry_run(request: PlanRequest, stored: Plan | None, beam_args: list[str]) -> int:
    """Print what the job would do; returns 0."""
    found = _of_new(request) if stored is None else _of_stored(request, stored)
    told = forecast(request, found.plan, found.work, found.totals).at(request.job.price_per_hour)
    if request.job.json:
        say(json.dumps(as_json(request, found, told)))
        return 0
    if found.shards:
        say(describe_plan(found.plan, found.shards, request))
    if stored is not None:
        of_plan = f"stored plan {amount(found.stored, 'shards')}"
        say(f"{of_plan}, {found.done:,} of them done; {found.added:,} to be added")
    say(*_lines(request, found.work, told))
    if runner_name(beam_args) == dataflow.RUNNER:
        say(f"workers     {dataflow.describe_workers(beam_args, found.work.shards)}")
    return 0


def as_json(request: PlanRequest, found: Outlook, told: Forecast) -> dict[str, Any]:
    """The same by the names in docs/encode.md."""
    plan, job, segment = found.plan, request.job, segment_of(found.shards) if found.shards else None
    return {
        "command": request.command.name.partition(":")[0],
        "output": job.output if job.kept else None,
        "files": segment.sources if segment else 0,
        "rows": segment.rows if segment else 0,
        "bytes": segment.bytes if segment else 0,
        "passed_over": plan.passed_over,
        "shards": found.stored + found.added,
        "shards_done": found.done,
        "rows_per_shard": plan.fingerprint["rows_per_shard"],
        "models": [{"role": model.role, "name": model.name, "source": model.source} for model in request.task.models],
        "dtype": plan.fingerprint["dtype"],
        "device": plan.settings["device"],
        "batch_size": plan.settings["batch_size"],
        "pending": {
            "shards": found.work.shards,
            "rows": found.work.rows,
            "rows_estimated": found.work.estimated,
            "images": told.images,
            **told.to_json(),
        },
    }


def _of_new(request: PlanRequest) -> Outlook:
    with stage(PLANNING):
        plan, shards = planning.make_plan(request)
    return Outlook(plan, shards, 0, 0, len(shards), _work(plan, shards), Totals())


def _of_stored(request: PlanRequest, plan: Plan) -> Outlook:
    """With what --extend would add; that alone is described then."""
    job, added = request.job, Work(0, 0, 0)
    shards: Sequence[Shard] = StoredShards(job.output, plan)
    if job.extend:
        with stage(PLANNING):
            plan, shards = planning.extend_plan(request, plan)
        added = _work(plan, shards)
    pending = pending_shards(job.output, plan.shards)
    totals = total_of(job.output)
    done, left = plan.shards - len(pending), _pending(request, plan, pending, totals)
    both = Work(
        left.rows + added.rows, left.bytes + added.bytes, left.shards + added.shards, left.estimated or added.estimated
    )
    return Outlook(plan, shards, plan.shards, done, added.shards, both, totals)


def _work(plan: Plan, shards: Sequence[Shard]) -> Work:
    """All of some shards."""
    if not shards:
        return Work(0, 0, 0)
    segment = segment_of(shards)
    if segment.rows is not None:
        return Work(segment.rows, segment.bytes, len(shards), estimated=_own_number(plan))
    most = len(shards) * int(plan.fingerprint["rows_per_shard"])
    return Work(shards.rows if isinstance(shards, PlannedShards) else most, segment.bytes, len(shards), estimated=True)


def _pending(request: PlanRequest, plan: Plan, pending: list[int], totals: Totals) -> Work:
    """What is left of a stored plan; rows that were not counted are taken to be as many a shard as in those done."""
    size = sum(segment.bytes for segment in plan.segments) * len(pending) / plan.shards
    rows = rows_of(request.job.output, plan, pending)
    if rows is not None:
        return Work(int(rows.sum()), size, len(pending), estimated=_own_number(plan))
    done = plan.shards - len(pending)
    each = totals.rows_read / request.task.images_per_row / done if done else float(plan.fingerprint["rows_per_shard"])
    return Work(round(each * len(pending)), size, len(pending), estimated=True)


def _own_number(plan: Plan) -> bool:
    """Whether rows say themselves how many images they become."""
    return has_own_number(plan.schema.get("options", ()))


def _lines(request: PlanRequest, work: Work, told: Forecast) -> list[str]:
    """The estimate for people, and what it is made from."""
    unit = request.command.unit
    if not work.shards:
        return ["time        none: every shard is done"]
    lines = []
    if work.estimated:
        lines.append(f"estimated   about {told.images:,} {unit}, since their number is not known before they are read")
    if told.by == RECORDED:
        by = "by the speed of the shards that are done here"
    elif told.by == MEASURED:
        by = f"by the models' arithmetic and a measurement of this processor, {ACCURACY}"
    else:
        by = "by the models' arithmetic, for a worker as docs/resume.md assumes it"
    if told.seconds is None:
        lines.append(f"time        about {duration(told.worker_seconds)} of one worker, {by}")
    else:
        lines.append(f"time        about {duration(told.seconds)}, {START_SECONDS:.0f} s of them to start, {by}")
    if request.job.kept:
        each = f", {told.bytes / told.images:,.0f} bytes each" if told.images else ""
        lines.append(f"size        about {size_text(told.bytes)} to be written{each}")
    if told.cost is not None:
        lines.append(f"cost        about {told.cost:,.2f}, at {request.job.price_per_hour:,.2f} an hour of a machine")
    return lines
