"""Marks: the JSON that says that a shard is done, read and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import STATS, is_inside
from transforms.ledger.types import SHARD, ShardCounts, StoredObject, shard_name, shard_number

MARK = re.compile(rf"({SHARD})\.json")
REPAIR = "`vqbeam verify --repair {}` has the shard done again"


@dataclass(frozen=True)
class Mark:
    """`objects` begin with the main object; `files` is the list of further ones (`ledger/file_lists.py`), which marks
    of earlier versions have in `objects`; `bytes` are those of all; `values` are all of the JSON."""

    counts: ShardCounts
    objects: tuple[StoredObject, ...]
    values: Mapping[str, Any]
    files: StoredObject | None = None
    bytes: int = 0


def read_mark(uri: str) -> Mark:
    """The mark of a shard. Raises `FileNotFoundError`, and `OutputDamaged` for anything but a mark."""
    data = storage.read_bytes(uri)
    try:
        values = json.loads(data)
        if not isinstance(values, dict) or f"{shard_name(values['shard'])}.json" != uri.rpartition("/")[2]:
            raise ValueError("it is of no shard, or of another one")
        objects = tuple(StoredObject(**item) for item in values["objects"])
        files = StoredObject(**values["files"]) if "files" in values else None
        size = values.get("bytes", sum(item.size for item in objects)) + 0
        if not objects or not all(is_inside(item.path) for item in (*objects, files) if item):
            raise ValueError("it lists files outside of the folder, or none")
        for name in ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions"):
            values[name] += 0
        return Mark(ShardCounts.from_json(data), objects, values, files, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = "empty" if not data else f"damaged ({type(error).__name__}: {error})"
        output = uri.rpartition("/_vqbeam/")[0]
        raise OutputDamaged(f"the mark {uri} is {said}: {REPAIR.format(output)}") from error


class ListedMark(NamedTuple):
    """A mark as a listing has it. `identity` is another one if the content is; empty if the store does not tell.
    `modified`: seconds since 1970, 0 if it does not tell that."""

    shard: int
    uri: str
    identity: str
    modified: float = 0.0


def listed_marks(output: str) -> Iterator[ListedMark]:
    """The marks of an output folder, by shard; one listing, of which a page at a time is held."""
    local = storage.is_local(output)
    for info in storage.iterate_files(storage.join(output, STATS)):
        named = MARK.fullmatch(info.uri.rpartition("/")[2])
        if named:
            yield ListedMark(shard_number(named[1]), info.uri, _identity(info, local), info.modified)


def _identity(info: storage.FileInfo, local: bool) -> str:
    if local:
        return f"{info.version} {info.size}"
    return info.md5


def identity_of(data: bytes, uri: str) -> str:
    """The identity that a listing gives to a mark that has just been put with the content `data`."""
    return _identity(storage.stat(uri), True) if storage.is_local(uri) else hashlib.md5(data).hexdigest()
