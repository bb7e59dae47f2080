"""Prompts given on the command line or in a list: the plan carries them itself, as one source that is no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa

from transforms.errors import UsageError
from transforms.inputs.columns import table_schema
from transforms.inputs.formats.format import Format, Piece, Planned, PlanTask
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import MAX_PROMPT_BYTES, Row, batches, fill_prompt
from transforms.ledger.types import INLINE, Slice, Source

MAX_PROMPTS = 10_000  # that a plan carries
URI = "--prompt"  # of the source, as stored in plans and rows


def plan(task: PlanTask) -> Planned:
    prompts = task.request.prompts
    if task.request.patterns:
        raise UsageError("prompt and input contradict each other: give one of them")
    if len(prompts) > MAX_PROMPTS:
        raise UsageError(
            f"{len(prompts)} prompts are given one by one, more than {MAX_PROMPTS}: write them to a .txt file, one a "
            "line, and give that as the input",
            option="prompt",
        )
    sizes = [_size(number, prompt) for number, prompt in enumerate(prompts)]
    source = Source(URI, INLINE, sum(sizes), "", rows=len(prompts))
    pieces: list[Piece] = []
    for start in range(0, 0 if source.uri in task.known else len(prompts), task.rows_per_shard):
        texts = prompts[start : start + task.rows_per_shard]
        pieces.append(Piece(Slice(source, start, start + len(texts), texts=texts), len(texts)))
    columns = pa.schema([("prompt", pa.string())])
    return pieces, task.schema or table_schema(task.request, columns, source.uri)


def _size(number: int, prompt: str) -> int:
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"prompt number {number} is not UTF-8", option="prompt") from error
    if size > MAX_PROMPT_BYTES:
        raise UsageError(f"prompt number {number} has {size} bytes, more than {MAX_PROMPT_BYTES}", option="prompt")
    return size


def read(
    slices: Iterable[Slice], schema: InputSchema, max_bytes: int, notices: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for part in slices:
        yield from batches(_rows(part, schema), schema)


def _rows(part: Slice, schema: InputSchema) -> Iterator[Row]:
    for number, prompt in enumerate(part.texts, part.start):
        if part.stop is not None and number >= part.stop:  # cut by `limit`
            return
        row = Row(f"prompt-{number:06d}", f"{part.source.uri}#{number}")
        yield fill_prompt(row, {schema.caption or "": prompt}, schema)


FORMAT = Format(INLINE, (), (), plan, read)
