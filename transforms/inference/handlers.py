"""The commands' steps behind Beam's `RunInference`, and how the public transforms return rows.

The commands do not go through here; they stream whole shards (`transforms/engine/worker.py`) with the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.batch import fixed_lists, to_rows
from transforms.errors import RowRejected, UsageError
from transforms.inference.notebook import check_notebook
from transforms.work.generate import GenerateStep, GeneratorSettings
from transforms.work.prompts import Slot, slot_batch
from transforms.work.step import Step

check_notebook()

Row = dict[str, Any]
RowArray = tuple[Row, np.ndarray]
Beside = Callable[[Row], Mapping[str, Any]]

GOOD = "good"
REJECTED = "rejected"
CACHE_DIR = "~/.cache/vqbeam"


class Outcome(NamedTuple):
    """`rows`: dicts that went through the model. `rejected`: a dict for each that could not, with the `row` as it came,
    `error` (a code of `docs/errors.md`) and `message`."""

    rows: beam.PCollection
    rejected: beam.PCollection


def rejected(row: Row, cause: RowRejected) -> beam.pvalue.TaggedOutput:
    """A row for `Outcome.rejected`."""
    Metrics.counter("vqbeam", "rows_rejected").inc()
    return beam.pvalue.TaggedOutput(REJECTED, {"row": row, "error": cause.code, "message": cause.message})


def check_batch_size(batch_size: int) -> None:
    """Raises `UsageError` for a batch without rows."""
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")


class StepHandler(ModelHandler[RowArray, RowArray, Step]):
    """A `ModelHandler` around a step: (row, array) in, (row, array or number) out.

    `taken` and `given` are what the step calls the two; `beside` makes further columns for it out of a row. The handler
    gives no resource hints: they would break fusion and put the pixels through a shuffle, on local runners too.
    """

    def __init__(self, step: Step, taken: str, given: str, beside: Beside | None = None) -> None:
        super().__init__()
        self._step = step
        self._taken = taken
        self._given = given
        self._beside = beside

    def load_model(self) -> Step:
        self._step.setup()
        return self._step

    def run_inference(
        self, batch: Sequence[RowArray], model: Step, inference_args: dict[str, Any] | None = None
    ) -> Iterable[RowArray]:
        rows = [row for row, _ in batch]
        columns = {self._taken: fixed_lists(np.stack([array for _, array in batch]))}
        if self._beside is not None:
            columns |= pa.RecordBatch.from_pylist([self._beside(row) for row in rows]).to_pydict()
        result = model(pa.RecordBatch.from_pydict(columns)).column(self._given)
        return zip(
            rows, to_rows(result) if pa.types.is_fixed_size_list(result.type) else result.to_numpy(), strict=True
        )

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One size: with a range Beam would tune the size by timing, and each is computed at the full size anyway."""
        return {"min_batch_size": self._step.batch_size, "max_batch_size": self._step.batch_size}

    def get_num_bytes(self, batch: Sequence[RowArray]) -> int:
        """For Beam's metrics; the default pickles the batch to find out."""
        return sum(array.nbytes for _, array in batch)

    def get_metrics_namespace(self) -> str:
        return f"vqbeam_{self._given}"


class SlotRow(NamedTuple):
    """A prompt as it came, and a slot with some of its images, prepared."""

    row: Row
    slot: Slot


class DrawnRow(NamedTuple):
    """A prompt as it came, and a row for each image of a slot."""

    row: Row
    images: pa.RecordBatch


class SlotHandler(ModelHandler[SlotRow, DrawnRow, GenerateStep]):
    """A `ModelHandler` around the step of `generate`; `settings` are called in the worker, which has the models.

    Like `StepHandler` it gives no resource hints.
    """

    def __init__(self, slots: int, settings: Callable[[], GeneratorSettings]) -> None:
        super().__init__()
        self._slots = slots
        self._settings = settings

    def load_model(self) -> GenerateStep:
        step = GenerateStep(self._settings())
        step.setup()
        return step

    def run_inference(
        self, batch: Sequence[SlotRow], model: GenerateStep, inference_args: dict[str, Any] | None = None
    ) -> Iterator[DrawnRow]:
        drawn = model(slot_batch([item.slot for item in batch]))
        start = 0
        for item in batch:
            count = len(item.slot.samples)
            yield DrawnRow(item.row, drawn.slice(start, count))
            start += count

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """One size, as with `StepHandler`."""
        return {"min_batch_size": self._slots, "max_batch_size": self._slots}

    def get_num_bytes(self, batch: Sequence[SlotRow]) -> int:
        return sum(item.slot.prompt.nbytes for item in batch)

    def get_metrics_namespace(self) -> str:
        return "vqbeam_pictures"
