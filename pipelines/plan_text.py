"""A plan as --dry_run prints it."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from operator import itemgetter

from pipelines.request import Task
from pipelines.screen import passed_over_lines
from pipelines.sizing import PlanRequest, has_own_number
from transforms.errors import amount, size_text
from transforms.inputs.formats.tables import DELIMITERS
from transforms.inputs.request import InputSchema
from transforms.ledger.plan import Plan, segment_of
from transforms.ledger.types import Shard, known_rows


def describe_plan(plan: Plan, shards: Sequence[Shard], request: PlanRequest) -> str:
    """The text that --dry_run prints."""
    segment, task = segment_of(shards), request.task
    rows = "prompts" if task.input.kind == "prompts" else "rows"
    weights = [(_weight(shard), shard.name, _size_text(shard, rows)) for shard in shards]
    largest = nlargest(10, weights, key=itemgetter(0))
    lines = [
        f"files       {segment.sources:,}",
        *passed_over_lines(plan),
        f"{rows:<11} {'not known before they are read' if segment.rows is None else f'{segment.rows:,}'}",
        *([f"images      {_images_text(plan, segment.rows, task)}"] if request.command.counts == "images" else []),
        *_quoting_lines(plan, shards),
        *_views_lines(plan, segment.rows),
        f"bytes       {segment.bytes:,}",
        f"shards      {len(shards):,} of at most {amount(plan.fingerprint['rows_per_shard'], rows)}",
        *(f"{model.role:<11} {model.name} ({model.about})" for model in task.models),
        f"dtype       {plan.fingerprint['dtype']} on {plan.settings['device']}, batch {plan.settings['batch_size']}",
        f"output      {request.job.output if request.job.kept else 'none: only totals are printed'}",
        f"largest     {', '.join(f'{name} ({size})' for _, name, size in largest)}",
    ]
    if len(shards) > 1:
        mean = sum(weight for weight, _, _ in weights) / len(shards)
        tail = largest[0][0] / mean if mean else 1.0
        told = f"the largest shard is {tail:.1f} times the mean: the last worker may run that long alone"
        lines.append(f"tail        {told}")
    return "\n".join(lines)


def _quoting_lines(plan: Plan, shards: Sequence[Shard]) -> list[str]:
    """What quotation marks in tables were taken for."""
    if not shards or shards[0].slices[0].source.format not in DELIMITERS:
        return []
    taken = InputSchema.from_json(plan.schema).quoting
    return [f"quoting     {taken}: quotation marks {'enclose cells' if taken == 'csv' else 'are text'}"]


def _views_lines(plan: Plan, rows: int | None) -> list[str]:
    """How many rows the images become."""
    views = plan.views
    if not views:
        return []
    return [f"views       {views:,} an image" + ("" if rows is None else f", {amount(rows * views, 'rows')} in all")]


def _weight(shard: Shard) -> float:
    """Bytes of a shard, each source's by the share of its rows."""
    weight = 0.0
    for part in shard.slices:
        size, rows = part.source.size, known_rows([part])
        weight += size * rows / part.source.rows if part.source.rows and rows is not None else size
    return weight


def _size_text(shard: Shard, unit: str) -> str:
    rows = known_rows(shard.slices)
    return size_text(_weight(shard)) if rows is None else amount(rows, unit)


def _images_text(plan: Plan, rows: int | None, task: Task) -> str:
    """How many images `rows` of the input become."""
    if has_own_number(plan.schema.get("options", ())):
        return f"as the column images says, else {task.images_per_row:,} a prompt"
    return f"{task.images_per_row:,} for each" if rows is None else f"{rows * task.images_per_row:,}"
