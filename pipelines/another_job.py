"""Says of a folder that another job made what it would cost to have it as asked, if the same images would come out."""

from __future__ import annotations

from itertools import islice

from pipelines.sizing import PlanRequest, has_own_number
from pipelines.status import duration
from transforms.errors import amount
from transforms.ledger.marks import listed_marks, read_mark
from transforms.ledger.plan import AnotherJob, Plan

SHARDS, KEPT, DRAWN = "rows_per_shard", "keep_best", ("drawing.images", "images_per_input")
MARKS = 100  # that the speed is taken from: a refusal is quick


def what_it_takes(request: PlanRequest, plan: Plan, error: AnotherJob) -> str:
    """A line or two more for the refusal; empty if other choices differ, or nothing is done yet."""
    differing = {name for name, _, _ in error.differences}
    marks = list(islice(listed_marks(request.job.output), MARKS))
    if not differing <= {SHARDS, KEPT, *DRAWN} or not marks:
        return ""
    unit, where = request.command.unit, "in a new folder, or here with --overwrite"
    again = _again(request, plan, [mark.uri for mark in marks])
    batch = f"with --batch_size {plan.settings['batch_size']}, as here"
    if differing == {SHARDS}:
        first = f"The shards of this folder stay as they are: leave --{SHARDS} out to go on with it."
        return f"{first}\nWith others, the same {unit} come out {where}, {batch}, and all is done again: {again}."
    same = f"the {unit} of both jobs are the same {where}, {batch}"
    if KEPT in differing:
        return f"What was not kept is not stored, so all is drawn again: {again}; {same}."
    return f"All is made again: {again}; {same}."


def _again(request: PlanRequest, plan: Plan, marks: list[str]) -> str:
    """ "24 images of 6 prompts, about 0:00:30 at the speed of this folder", as far as that is known."""
    command, each = request.command, request.task.images_per_row
    own_number = has_own_number(plan.schema.get("options", ()))
    counts = [None if own_number else segment.rows for segment in plan.segments]
    done = [read_mark(uri).values for uri in marks]
    read, seconds = sum(mark["rows_read"] for mark in done), sum(mark["seconds"] for mark in done)
    if None in counts:
        return f"{amount(round(read / len(done)), command.unit)} a shard, about {duration(seconds / len(done))} each"
    rows = sum(count or 0 for count in counts)
    told = amount(rows * each, command.unit)
    if command.counts == "images":
        told += f" of {amount(rows, 'prompts' if request.task.input.kind == 'prompts' else 'rows')}"
    workers = int(plan.settings["workers"] or 1)
    if read:
        told += f", about {duration(seconds / read * rows * each / workers)} at the speed of this folder"
    return told
