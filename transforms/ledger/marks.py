"""Marks: the JSON that says that a shard is done, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import is_inside
from transforms.ledger.types import ShardCounts, StoredObject

REPAIR = "`vqbeam verify --repair {}` has the shard done again"


@dataclass(frozen=True)
class Mark:
    """`objects` begin with the main object; `values` are all of the JSON."""

    counts: ShardCounts
    objects: tuple[StoredObject, ...]
    values: Mapping[str, Any]


def read_mark(uri: str) -> Mark:
    """The mark of a shard. Raises `FileNotFoundError`, and `OutputDamaged` for anything but a mark."""
    data = storage.read_bytes(uri)
    try:
        values = json.loads(data)
        if not isinstance(values, dict) or values["shard"] != int(uri.rpartition("/")[2].removesuffix(".json")):
            raise ValueError("it is of no shard, or of another one")
        objects = tuple(StoredObject(**item) for item in values["objects"])
        if not objects or not all(is_inside(item.path) for item in objects):
            raise ValueError("it lists files outside of the folder, or none")
        for name in ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions"):
            values[name] += 0
        return Mark(ShardCounts.from_json(data), objects, values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = "empty" if not data else f"damaged ({type(error).__name__}: {error})"
        output = uri.rpartition("/_vqbeam/")[0]
        raise OutputDamaged(f"the mark {uri} is {said}: {REPAIR.format(output)}") from error
