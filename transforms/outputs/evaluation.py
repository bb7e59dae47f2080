"""A table of rows with the measures of their reconstructions, and what these come to in total: `evaluation.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import (
    CLIP_COSINE,
    CLIP_ORIGINAL,
    CLIP_RECONSTRUCTION,
    CODES_USED,
    ENCODING,
    OUTPUT_TYPES,
    PERPLEXITY,
    PIXELS,
    PSNR,
    RECONSTRUCTION,
    SSIM,
    to_images,
    to_rows,
)
from transforms.ledger.folder import EVALUATION
from transforms.ledger.sums import Totals
from transforms.ledger.types import ShardCounts, pack_codes, shard_name
from transforms.outputs import cmmd
from transforms.outputs.layout import Columns, SinkTarget
from transforms.outputs.measures import perplexity, psnr, ssim
from transforms.outputs.table import TABLE, TableSink

GROUP_ROWS = 1024
DIGITS = 6  # of totals
COUNTS = ("rows_read", "rows_written", "rows_rejected", "rows_filtered")
CLIP_COLUMNS = (CLIP_COSINE, CLIP_ORIGINAL, CLIP_RECONSTRUCTION)
OF_A_MODEL = (ENCODING, PSNR, SSIM, CODES_USED, PERPLEXITY, *CLIP_COLUMNS)


@dataclass(frozen=True)
class Evaluated:
    """A tokenizer that is measured; `suffix` ends the names of its columns."""

    suffix: str
    codebook_size: int


def suffixes(models: int) -> list[str]:
    """What ends the names of each model's columns: nothing if there is one model."""
    return [""] if models == 1 else [f"_{number}" for number in range(1, models + 1)]


def model_columns(suffix: str, codes: pa.DataType, clip_size: int) -> Columns:
    """The columns of a model whose codes are of the type `codes`; with a CLIP those of its vectors of `clip_size`."""
    types = {ENCODING: codes, **dict.fromkeys((CLIP_ORIGINAL, CLIP_RECONSTRUCTION), pa.list_(pa.float32(), clip_size))}
    names = [name for name in OF_A_MODEL if clip_size or name not in CLIP_COLUMNS]
    return [(name + suffix, types[name] if name in types else OUTPUT_TYPES[name]) for name in names]


class EvaluationSink(TableSink):
    """Measures the `reconstruction` of each model against its `pixels` in the pool, and writes the table of both."""

    def __init__(self, target: SinkTarget, models: Sequence[Evaluated]) -> None:
        super().__init__(target, GROUP_ROWS)
        self._models = models
        self._used = np.zeros(models[0].codebook_size, bool)

    def write(self, batch: pa.RecordBatch) -> None:
        for model in self._models:
            batch = self._measured(batch, model)
        super().write(batch)

    def finish(self, counts: ShardCounts) -> None:
        if len(self._models) == 1:
            counts.codes_used = pack_codes(self._used)
        super().finish(counts)

    def _measured(self, batch: pa.RecordBatch, model: Evaluated) -> pa.RecordBatch:
        end = model.suffix
        pairs = to_images(batch.column(PIXELS + end)), to_images(batch.column(RECONSTRUCTION + end))
        pool = self._target.compress_pool
        likeness = [pool.map(measure, *pairs) for measure in (psnr, ssim)]
        codes = to_rows(batch.column(ENCODING + end))
        counts = [np.unique(row, return_counts=True)[1] for row in codes]
        if len(self._models) == 1:
            self._used[codes.reshape(-1)] = True
        for name, values in zip((PSNR, SSIM), likeness, strict=True):
            batch = batch.append_column(name + end, pa.array(list(values), pa.float64()))
        batch = batch.append_column(CODES_USED + end, pa.array([len(used) for used in counts], pa.int32()))
        return batch.append_column(PERPLEXITY + end, pa.array(list(map(perplexity, counts)), pa.float64()))


class ModelTotals:
    """The totals of one model. Sums run along the rows, so that shards of other sizes give the same."""

    def __init__(self, model: Evaluated, clip_size: int) -> None:
        self.model = model
        self.rows = self.exact = self.small = 0
        self._sums = {PSNR: 0.0, SSIM: 0.0, CLIP_COSINE: 0.0}
        self._codes = np.zeros(model.codebook_size, np.int64)
        self._clip = [cmmd.Gatherer(clip_size) for _ in range(2)] if clip_size else []

    @property
    def columns(self) -> list[str]:
        """Those that it reads."""
        names = [ENCODING, PSNR, SSIM, *(CLIP_COLUMNS if self._clip else ())]
        return [name + self.model.suffix for name in names]

    def add(self, batch: pa.RecordBatch) -> None:
        end = self.model.suffix
        self.rows += batch.num_rows
        self.exact += batch.column(PSNR + end).null_count
        self.small += batch.column(SSIM + end).null_count
        for name in self._sums if self._clip else (PSNR, SSIM):
            found = batch.column(name + end).drop_null().to_numpy().astype(np.float64)
            self._sums[name] = float(np.cumsum([self._sums[name], *found])[-1])
        codes = to_rows(batch.column(ENCODING + end)).reshape(-1)
        self._codes += np.bincount(codes, minlength=len(self._codes))
        for name, gatherer in zip((CLIP_ORIGINAL, CLIP_RECONSTRUCTION), self._clip, strict=False):
            gatherer.add(to_rows(batch.column(name + end)))

    def to_json(self) -> dict[str, Any]:
        used = int((self._codes > 0).sum())
        told = {
            "psnr": self._mean(PSNR, self.rows - self.exact),
            "exact_rows": self.exact,
            "ssim": self._mean(SSIM, self.rows - self.small),
            "rows_without_ssim": self.small,
            "codes_used": used,
            "share_of_codes_used": round(used / len(self._codes), DIGITS),
            "perplexity": _rounded(perplexity(self._codes)),
        }
        if self._clip:
            told["clip_cosine"] = self._mean(CLIP_COSINE, self.rows)
            told["cmmd"] = _rounded(cmmd.cmmd(*(gatherer.moments() for gatherer in self._clip)))
        return told

    def _mean(self, name: str, rows: int) -> float | None:
        return _rounded(self._sums[name] / rows) if rows else None


def summarise(
    output: str, shards: int, models: Sequence[Mapping[str, Any]], counts: Totals, clip: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Add up the tables of a finished job as `totals_of`, put the totals into its folder, and return them."""
    told = totals_of(output, shards, models, counts, clip)
    storage.put_bytes(f"{json.dumps(told, indent=1, allow_nan=False)}\n".encode(), storage.join(output, EVALUATION))
    return told


def totals_of(
    output: str, shards: int, models: Sequence[Mapping[str, Any]], counts: Totals, clip: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the tables of a finished job come to.

    `models` says what each is, with its `codebook_size`; `clip` what the CLIP is, with the `size` of its vectors.
    """
    named = zip(models, suffixes(len(models)), strict=True)
    size = int(clip["size"]) if clip else 0
    totals = [ModelTotals(Evaluated(suffix, int(model["codebook_size"])), size) for model, suffix in named]
    columns = [name for total in totals for name in total.columns]
    for batch in _batches(output, shards, columns):
        for total in totals:
            total.add(batch)
    told: dict[str, Any] = {name: getattr(counts, name) for name in COUNTS}
    told["models"] = [{**model, **total.to_json()} for model, total in zip(models, totals, strict=True)]
    if clip:
        told["clip"] = dict(clip)
        floor = round(cmmd.floor(counts.rows_written), DIGITS)
        about = {"definition": cmmd.DEFINITION, "source": cmmd.SOURCE}
        told["cmmd"] = {"rows": counts.rows_written, "floor": floor, **about}
    return told


def totals_problem(output: str, shards: int, weights: Sequence[str], counts: Totals, *, with_clip: bool) -> str | None:
    """What is wrong with the totals in the folder of a finished job, in words; None if they are those of its tables.

    `weights` are the ids of its models.
    """
    again = "rerun the command of the job, which writes it again"
    try:
        stored = json.loads(storage.read_bytes(storage.join(output, EVALUATION)))
        if [model["weights_id"] for model in stored["models"]] != list(weights):
            return f"{EVALUATION} is of other models than this job: {again}"
        computed = totals_of(output, shards, stored["models"], counts, stored["clip"] if with_clip else None)
    except FileNotFoundError:
        return f"{EVALUATION} is missing: {again}"
    except (ValueError, TypeError, KeyError):
        return f"{EVALUATION} is damaged: {again}"
    return None if _alike(stored, computed) else f"{EVALUATION} says other totals than the tables: {again}"


def _alike(one: object, other: object) -> bool:
    """Equal, but for the last digits of numbers, which another machine may round otherwise."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
    return one == other


def _batches(output: str, shards: int, columns: list[str]) -> Iterable[pa.RecordBatch]:
    for index in range(shards):
        with storage.open_read(storage.join(output, TABLE.folder, f"{shard_name(index)}.{TABLE.suffix}")) as file:
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            yield from parquet.iter_batches(GROUP_ROWS, columns=columns)


def as_text(told: Mapping[str, Any]) -> str:
    """The totals as a table, a column for each model; those of one name are told apart by where they are from."""
    models = told["models"]
    names = [model["model"] for model in models]
    lines = [["", *(one["model_source"] if names.count(one["model"]) > 1 else one["model"] for one in models)]]
    lines.append(["PSNR", *(_db(model["psnr"]) for model in models)])
    if any(model["exact_rows"] for model in models):
        lines.append(["exact", *(f"{model['exact_rows']:,} rows" for model in models)])
    lines.append(["SSIM", *(_number(model["ssim"], 4) for model in models)])
    if any(model["rows_without_ssim"] for model in models):
        lines.append(["too small", *(f"{model['rows_without_ssim']:,} rows" for model in models)])
    used = [
        f"{model['codes_used']:,} of {model['codebook_size']:,} ({model['share_of_codes_used']:.1%})"
        for model in models
    ]
    lines.append(["codes used", *used])
    lines.append(["perplexity", *(_number(model["perplexity"], 1) for model in models)])
    if "cmmd" in told:
        lines.append(["CLIP cosine", *(_number(model["clip_cosine"], 4) for model in models)])
        lines.append(["CMMD", *(_number(model["cmmd"], 4) for model in models)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    if "cmmd" in told:
        about = told["cmmd"]
        rows.append(
            f"CMMD of {about['rows']:,} rows: two samples of one distribution are about {about['floor']:.2g} apart"
        )
    return "\n".join(f"  {row}".rstrip() for row in rows)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} dB"
