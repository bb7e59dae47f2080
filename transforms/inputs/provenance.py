"""The provenance stored in a Parquet file of tokens, and whether a model may decode them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import WrongCodebook
from transforms.inputs.formats.format import check_unchanged
from transforms.ledger.tables import PROVENANCE_KEY
from transforms.ledger.types import Source


def token_provenance(uri: str) -> Mapping[str, Any] | None:
    """The provenance that vqbeam stored in a file; None for tokens of another origin. Raises `FileNotFoundError`."""
    with storage.open_read(uri) as file:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except pa.ArrowInvalid:
            return None  # no Parquet at all: reading it makes that a rejected row
    stored = metadata.get(PROVENANCE_KEY.encode())
    provenance: Mapping[str, Any] | None = json.loads(stored) if stored else None
    return provenance


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
