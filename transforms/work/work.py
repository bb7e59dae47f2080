"""A command inside a shard: its columns, its stages and its sink, in the order in which rows meet them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa

from transforms.batch import OUTPUT_TYPES
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.ledger.types import Source
from transforms.outputs.layout import Columns, Sink, SinkTarget
from transforms.outputs.table import TABLE
from transforms.work.prepare import Fetch, Pools, Prepared, Preparer, Refusal
from transforms.work.step import Step


class Work(ABC):
    """One command, with all its settings resolved: a frozen dataclass that travels to the workers inside the `Job`.

    Rows pass `preparer`, `batches`, `step`, `after` and `sink`. The engine (`transforms/engine/worker.py`) reads,
    counts, times, logs refused rows, stops and commits.
    """

    @property
    def main(self) -> MainObject:
        """The object of a shard that decides: by default a table."""
        return TABLE

    @abstractmethod
    def columns(self, schema: InputSchema) -> Columns:
        """Names and types of the output table, except the columns that pass through."""

    def check_source(self, source: Source) -> None:  # noqa: B027 - most commands read any source
        """Called for every source of a shard before it is read. Raises `ShardFailed` if it must not be."""

    @abstractmethod
    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        """The stage from rows as they were read to rows that the model takes; made anew for every shard."""

    @property
    def rows_prepared(self) -> int | None:
        """The most rows given to the preparer at once, if it keeps more of each than it was given; None for the limit
        of the reader."""
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
        """From rows behind the step to rows for the sink, in order, and the rows that end here.

        Rows may be held back until others have come, no longer than that. Every row that comes in goes out once: in a
        batch, or as a `Refusal` with `RowFiltered` or `RowRejected` in it. Runs in the thread of the step.
        """
        yield from batches

    @abstractmethod
    def sink(self, target: SinkTarget) -> Sink:
        """The sink of one shard."""


def output_columns(written: Iterable[str], absent: Collection[str] = (), **types: pa.DataType) -> Columns:
    """The columns that a command can write, without the `absent` ones; `types` are those that depend on the job."""
    return [(name, types[name] if name in types else OUTPUT_TYPES[name]) for name in written if name not in absent]
