"""Hashes of what a command wrote, without what differs from run to run: seconds and versions in JSON.

Messages may be reworded while the rest of the output stays the same. They are in the tables of rejected rows and, by
the hashes in their names, in the tables and marks that name those. Such a file has a second hash, without messages.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PASSING = ("seconds", "timings", "vqbeam_version")  # keys of JSON files that are no output
ERRORS_NAME = re.compile(r"(_vqbeam/errors/\d+)\.([0-9a-f]{16})\.parquet$")
COUNTS = b"vqbeam.shard"  # the counts of a shard in the metadata of its table
COUNTS_MEMBER = "__vqbeam__"  # and in the last member of its tar
MESSAGE = "message"  # column of a table of rejected rows

Hashes = dict[str, str]  # "bytes", and "but_messages" if the two can differ


def hashes_below(folder: Path) -> dict[str, Hashes]:
    """Every file below a folder by its path; those of rejected rows without the hash in their names."""
    found: dict[str, Hashes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            plain = ERRORS_NAME.sub(r"\1.parquet", name)
            true_name = ERRORS_NAME.search(name)
            well = true_name is None or _digest(data).startswith(true_name[2])
            found[plain if well and plain not in found else name] = _hashes(name, data)
    return found


def _hashes(name: str, data: bytes) -> Hashes:
    try:
        if name.endswith(".json") and "_vqbeam/" in name and not name.endswith("plan.json"):
            values = _without(json.loads(data), PASSING)
            return _pair(_canonical(values), _canonical(_mark_without_messages(values)))
        if ERRORS_NAME.search(name):
            return _pair(data, _rejected_without_messages(data))
        if name.endswith(".parquet") and data[-4:] == b"PAR1":
            return _pair(data, _table_without_messages(data))
        if name.endswith(".tar"):
            return _pair(data, _tar_without_messages(data))
    except (ValueError, pa.ArrowException, tarfile.TarError):  # damaged on purpose
        pass
    return {"bytes": _digest(data)}


def _pair(data: bytes, without: bytes | None) -> Hashes:
    return {"bytes": _digest(data)} | ({} if without is None else {"but_messages": _digest(without)})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, default=repr).encode()


def _without(values: Any, keys: tuple[str, ...]) -> Any:
    return {name: value for name, value in values.items() if name not in keys}


def _counts_without_messages(counts: dict[str, Any]) -> dict[str, Any]:
    """The counts of a shard without the hash in the name of its rejected rows, and without the words of notices."""
    return counts | {
        "errors_file": bool(counts.get("errors_file")),
        "notices": sorted(counts.get("notices", {}).values()),
    }


def _mark_without_messages(values: dict[str, Any]) -> dict[str, Any]:
    """A mark without its objects' hashes, or the account of the last run without its reasons."""
    if "failed" in values:
        failed = [number for number, _ in values["failed"]]
        return values | {"failed": failed, "failing": values.get("failing") is not None}
    if "objects" not in values:
        return values
    objects = [ERRORS_NAME.sub(r"\1.parquet", item["path"]) for item in values["objects"]]
    return _counts_without_messages(values) | {"objects": objects}


def _rejected_without_messages(data: bytes) -> bytes:
    rows = pq.read_table(io.BytesIO(data))
    return _canonical([str(rows.schema), rows.drop_columns([MESSAGE]).to_pylist()])


def _table_without_messages(data: bytes) -> bytes | None:
    """The bytes of a table before its footer, and what the footer says; None if that has no counts."""
    footer = pq.read_metadata(io.BytesIO(data))
    metadata = dict(footer.metadata or {})
    if COUNTS not in metadata:
        return None
    counts = _counts_without_messages(json.loads(metadata.pop(COUNTS)))
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    said = [_without(footer.to_dict(), ("serialized_size",)), counts]
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in metadata.items()}
    return data[:start] + _canonical([said, texts])


def _tar_without_messages(data: bytes) -> bytes:
    """The bytes of a tar before the member with its counts, and the counts."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.getmember(COUNTS_MEMBER) if COUNTS_MEMBER in tar.getnames() else None
        content = None if member is None else tar.extractfile(member)
        if member is None or content is None:
            return data
        return data[: member.offset] + _canonical(_counts_without_messages(json.loads(content.read())))
