"""What the shard runner asks of a command: columns, stages and sink, in the order in which rows meet them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from transforms.engine.resources import Resources
from transforms.inputs import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, Sink, SinkTarget
from transforms.outputs.table import TABLE
from transforms.work.prepare import Fetch, Prepared, Preparer, Refusal
from transforms.work.step import Step


class Work(Protocol):
    """One command, with all its settings resolved: a frozen dataclass that travels to the workers inside the `Job`.

    A subclass states what has no default here. Rows pass `preparer`, `batches`, `step`, `after` and `sink`. The runner
    (`transforms/engine/worker.py`) reads, counts, times, logs what is refused, stops and commits.
    """

    @property
    @abstractmethod
    def device(self) -> str:
        """What the user chose: "auto", "cpu", "cuda" or "cuda:N"."""

    @property
    def main(self) -> MainObject:
        """The object of a shard that decides: by default a table."""
        return TABLE

    @abstractmethod
    def columns(self, schema: InputSchema) -> Columns:
        """Names and types of the output table, but for the columns that pass through."""

    def check_source(self, source: Source) -> None:
        """Called for every source of a shard before it is read. Raises `ShardFailed` where it must not be."""
        return

    @abstractmethod
    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Resources) -> Preparer:
        """From rows as they were read to rows that the model takes; made anew for every shard."""

    @property
    def rows_prepared(self) -> int | None:
        """The most rows that are given to the preparer at once, where it keeps more of each than it was given; None:
        as many as the reader puts into a batch."""
        return None

    @abstractmethod
    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        """Cut the stream of good rows into batches for the step, of at most its `batch_size`.

        A row may become several here, so that they never all lie in memory: its `Prepared` has counted them in
        `rows_read`, and the batches number them in a column `SAMPLE`.
        """

    @abstractmethod
    def step(self, device: str) -> Step:
        """The model step for one device of the process; weights are loaded by its `setup`."""

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        """What has been through the step -> what goes to the sink, in order, and the rows that end here.

        Rows may be held back until others have come, no longer than that. Every row that comes in goes out once: in a
        batch, or as a `Refusal` with `RowFiltered` or `RowRejected` in it. Runs in the thread of the step.
        """
        yield from batches

    @abstractmethod
    def sink(self, target: SinkTarget) -> Sink:
        """The sink of one shard."""
