"""Where sources come from: the provenance in vqbeam's Parquet files, and whether a source is the planned one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import IMAGE_PATH
from transforms.errors import SourceChanged, WrongCodebook, amount
from transforms.inputs.uris import folder_of
from transforms.ledger.folder import FILES
from transforms.ledger.tables import PROVENANCE_KEY
from transforms.ledger.types import Source


def _provenance(columns: pa.Schema) -> Mapping[str, Any] | None:
    stored = (columns.metadata or {}).get(PROVENANCE_KEY.encode())
    provenance: Mapping[str, Any] | None = json.loads(stored) if stored else None
    return provenance


def token_provenance(uri: str) -> Mapping[str, Any] | None:
    """The provenance of a file; None for tokens that vqbeam did not write. Raises `FileNotFoundError`."""
    with storage.open_read(uri) as file:
        try:
            return _provenance(pq.read_schema(file))
        except pa.ArrowInvalid:
            return None  # no Parquet at all: reading it makes that a rejected row


def image_root(source: Source, columns: pa.Schema, image: str | None) -> Source:
    """The table, moved to the folder that the paths in its column `image` are relative to.

    That is its own folder, except for images that vqbeam wrote: their paths are relative to its output folder, and the
    tables are in `data/` there.
    """
    if image != IMAGE_PATH or (_provenance(columns) or {}).get("image_layout") != FILES:
        return source
    output = folder_of(folder_of(source.uri))
    name = source.uri.rpartition("/")[2]
    return replace(source, uri=f"{output}/{name}", root=min(source.root, output, key=len))


def mismatch(uri: str, provenance: Mapping[str, Any] | None, codebook_id: str) -> str | None:
    """Why codes from `uri` are not the model's; None if they are, or if nothing is known of them."""
    if provenance is None or provenance.get("codebook_id") in (None, codebook_id):
        return None
    return (
        f"{uri} was encoded with the model {provenance.get('model')!r} (codebook {provenance['codebook_id'][:12]}), "
        f"not with this one (codebook {codebook_id[:12]}): the codes would look valid and decode to nonsense. "
        "Give the model that made them, or allow_model_mismatch if you know better"
    )


def check_codebook(source: Source, expected: str | None) -> None:
    """Raises `WrongCodebook` if tokens of `source` come from another codebook than `expected`; None is any."""
    if expected is None:
        return
    check_unchanged(source)
    problem = mismatch(source.uri, token_provenance(source.uri), expected)
    if problem:
        raise WrongCodebook(problem)


def check_unchanged(source: Source) -> None:
    """Raises `SourceChanged` if a file is no longer the one that was planned."""
    try:
        now = storage.stat(source.uri)
    except FileNotFoundError as error:
        raise SourceChanged(f"{source.uri} is gone since the plan was made") from error
    if (now.size, now.version) != (source.size, source.version):
        raise SourceChanged(
            f"{source.uri} changed since the plan was made (then {amount(source.size, 'bytes')}, version "
            f"{source.version}; now {amount(now.size, 'bytes')}, version {now.version}): start with a new "
            "output, or overwrite this one"
        )
