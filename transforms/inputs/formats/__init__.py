"""The input formats: one file each, and one line each in `FORMATS`."""

from __future__ import annotations

from transforms.inputs.formats import files, parquet, prompts, tables, webdataset
from transforms.inputs.formats.format import Format
from transforms.inputs.request import Kind

FORMATS = (
    parquet.FORMAT,
    webdataset.FORMAT,
    files.FORMAT,
    tables.CSV,
    tables.TSV,
    tables.JSONL,
    tables.TXT,
    tables.METADATA,
    prompts.FORMAT,
)
BY_NAME = {format.name: format for format in FORMATS}


def formats_of(kind: Kind) -> dict[str, Format]:
    """The formats that hold rows of a kind, by name, in the order of the alphabet."""
    return {name: format for name, format in sorted(BY_NAME.items()) if kind in format.kinds}
