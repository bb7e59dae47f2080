"""The commands' steps behind Beam's `RunInference`, and how the public transforms take and return rows.

The commands do not go through here; they stream whole shards (`transforms/engine/worker.py`) with the same steps.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.work.step import Step

INTERACTIVE = "apache_beam.runners.interactive.interactive_environment"  # Beam imports it at every `|` in IPython
MIXING = ("apache_beam.runners.dask.dask_runner",)  # their runners give every output of a step to each consumer
GOOD = "good"
REJECTED = "rejected"

Row = dict[str, Any]
Pair = tuple[Row, Any]  # a row, and its part of what the model takes or returns
Reader = Callable[[Row], Iterable[Pair]]  # raises `RowRejected` and `RowFiltered`


def check_notebook() -> None:
    """Raises `ImportError` if this is IPython and Beam's module for it cannot be imported.

    Seen in Beam 2.77: without pandas it is missing, and with pandas 3 it asks for `DataFrame.first`.
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    try:
        importlib.import_module(INTERACTIVE)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"Apache Beam runs in a notebook with pandas below 3 only: pip install 'pandas<3' ({error})"
        ) from None


check_notebook()


class Outcome(NamedTuple):
    """`rows`: dicts that went through the model. `rejected`: a dict for each that could not, with the `row` as it came,
    `error` (a code of `docs/errors.md`) and `message`."""

    rows: beam.PCollection
    rejected: beam.PCollection


class ReadRows(beam.DoFn):
    """A dict -> pairs for the model, and dicts for `Outcome.rejected`. `open_reader` is called in the worker, which has
    the model."""

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader

    def setup(self) -> None:
        self._read = self._open_reader()

    def process(self, row: Row) -> Iterator[Pair | beam.pvalue.TaggedOutput]:
        try:
            yield from self._read(row)
        except RowFiltered:
            Metrics.counter("vqbeam", "rows_filtered").inc()
        except RowRejected as cause:
            Metrics.counter("vqbeam", "rows_rejected").inc()
            yield beam.pvalue.TaggedOutput(REJECTED, {"row": row, "error": cause.code, "message": cause.message})


def through_model(
    rows: beam.PCollection,
    labels: tuple[str, str, str],
    open_reader: Callable[[], Reader],
    handler: StepHandler,
    add: beam.PTransform,
) -> Outcome:
    """Read rows, run the step on them, and `add` the parts that it returned to their rows.

    Raises `UsageError` for a runner that does not tell good rows from rejected ones.
    """
    runner = type(rows.pipeline.runner)
    if any(kind.__module__ in MIXING for kind in runner.__mro__):
        raise UsageError(
            f"{runner.__name__} mixes the outputs of a step: good rows would arrive as rejected ones. Use another "
            "runner, or the commands of vqbeam, which run on it"
        )
    reading, running, adding = labels
    read = rows | reading >> beam.ParDo(ReadRows(open_reader)).with_outputs(REJECTED, main=GOOD)
    return Outcome(read[GOOD] | running >> RunInference(handler) | adding >> add, read[REJECTED])


class StepHandler(ModelHandler[Pair, Pair, Step]):
    """A `ModelHandler` around a step: (row, part) in, (row, part) out.

    `open_step` is called in the worker, which has the model. `pack` makes the batch that the step takes of at most
    `batch_size` pairs; `unpack` yields a part for each pair of the batch that the step returns. The handler gives no
    resource hints: they would break fusion and put the pixels through a shuffle, on local runners too.
    """

    def __init__(
        self,
        open_step: Callable[[], Step],
        batch_size: int,
        pack: Callable[[Sequence[Pair]], pa.RecordBatch],
        unpack: Callable[[pa.RecordBatch, Sequence[Pair]], Iterable[Any]],
        name: str,
    ) -> None:
        super().__init__()
        self._open_step = open_step
        self._batch_size = batch_size
        self._pack = pack
        self._unpack = unpack
        self._name = name

    def load_model(self) -> Step:
        step = self._open_step()
        step.setup()
        return step

    def run_inference(
        self, batch: Sequence[Pair], model: Step, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Pair]:
        parts = self._unpack(model(self._pack(batch)), batch)
        return zip((row for row, _ in batch), parts, strict=True)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One size: with a range Beam would tune the size by timing, and each is computed at the full size anyway."""
        return {"min_batch_size": self._batch_size, "max_batch_size": self._batch_size}

    def get_num_bytes(self, batch: Sequence[Pair]) -> int:
        """For Beam's metrics; the default pickles the batch to find out."""
        return sum(part.nbytes for _, part in batch)

    def get_metrics_namespace(self) -> str:
        return f"vqbeam_{self._name}"
