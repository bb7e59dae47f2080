"""Runs a public transform on a list of rows in this process."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

LOCAL = ["--runner=FnApiRunner"]
COLLECTED: dict[str, list[dict[str, Any]]] = {}


def collect(element: dict[str, Any], into: str) -> None:
    """A function of a module, which Beam pickles by name, so that it fills the list of this process."""
    COLLECTED[into].append(element)


def outcome(transform: beam.PTransform, rows: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The transform's rows, sorted by key and sample, and its rejected rows."""
    COLLECTED.update(rows=[], rejected=[])
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as p:
        good, bad = p | beam.Create(rows) | transform
        good | "Take rows" >> beam.Map(collect, "rows")
        bad | "Take rejected" >> beam.Map(collect, "rejected")
    return sorted(COLLECTED["rows"], key=lambda row: (row["key"], row.get("sample", 0))), COLLECTED["rejected"]
