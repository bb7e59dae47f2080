"""The values of the ledger: a shard, an ordered list of slices of sources; what a shard reports once it is done.

Counts are part of a shard's output; timings are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

SHARD = r"(?:\d{5}|a[1-9]\d{5}|b[1-9]\d{6}|c[1-9]\d{7}|d[1-9]\d{8})"  # what `shard_name` gives
INLINE = "inline"  # the format of a source that is no file: its rows are in the plan
STAGES = ("read", "decode", "model", "write")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that rows come from.

    `uri` is absolute, with its scheme unless local. `version` changes when the file does: generation or etag of an
    object store, mtime locally. `format` is the name of an input format, or `INLINE`. `root` is the prefix that keys
    made from paths leave out. `rows` is None unless planning read it. `checksum` is of the content, or of parts of it;
    empty if there is none to compare with: in plans of earlier versions, and for local images, which planning does not
    open.
    """

    uri: str
    format: str
    size: int
    version: str
    root: str = ""
    rows: int | None = None
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows [start, stop) of a source; `stop` None is "to the end". `offset` is the byte where row `start` begins
    in an uncompressed text table, 0 elsewhere. `texts` are the rows of an `INLINE` source."""

    source: Source
    start: int = 0
    stop: int | None = None
    offset: int = 0
    texts: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether no other slice holds rows of the source."""
        return self.start == 0 and (self.stop is None or self.stop == self.source.rows)


def known_rows(slices: Sequence[Slice]) -> int | None:
    """Rows of all `slices`; None if only reading a source tells how many it has."""
    rows = [part.stop - part.start for part in slices if part.stop is not None]
    return sum(rows) if len(rows) == len(slices) else None


def shard_name(index: int) -> str:
    """The name of a shard in files: five digits, or a letter and more, so that names sort as the numbers do.

    The letter stands for the number of digits: 99999, a100000, ..., a999999, b1000000.
    """
    digits = f"{index:05d}"
    return digits if len(digits) == 5 else f"{chr(ord('a') + len(digits) - 6)}{digits}"


def shard_number(name: str) -> int:
    """The shard of a name. Raises `ValueError` unless `shard_name` gave it."""
    index = int(name.lstrip("abcde"))
    if shard_name(index) != name:
        raise ValueError(f"{name!r} names no shard")
    return index


@dataclass(frozen=True, slots=True)
class Shard:
    """`index` names the output files; `slices` are read in order."""

    index: int
    slices: tuple[Slice, ...]

    @property
    def name(self) -> str:
        return shard_name(self.index)


@dataclass
class RowCounts:
    """`rows_read` = written + rejected + filtered. `notices` counts, in words, values that were left out unasked."""

    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0
    rows_filtered: int = 0
    missing_captions: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    filters: dict[str, int] = field(default_factory=dict)
    notices: dict[str, int] = field(default_factory=dict)


@dataclass
class ShardCounts(RowCounts):
    """Rows of one shard. The shard's output holds them, so nothing here may depend on time, machine or attempt.
    `codes_used` is a bit set of code ids, hex."""

    errors_file: str = ""
    codes_used: str = ""

    def reject(self, code: str) -> None:
        self.rows_rejected += 1
        self.errors[code] = self.errors.get(code, 0) + 1

    def filter(self, reason: str) -> None:
        self.rows_filtered += 1
        self.filters[reason] = self.filters.get(reason, 0) + 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardCounts:
        values = json.loads(text)
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


@dataclass(frozen=True)
class StoredObject:
    """An object of a shard: its path below the output folder, bytes, and SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ShardReport:
    """How an attempt at a shard ended: "done", "adopted" from another attempt, "skipped" because its mark was there,
    "failed" for `reason`, or "stopped". `advised`: the reason says what to do. `sources` are those that were read as
    they are now, not as they were planned. `mark` is the identity of the mark, if this attempt put it: then
    `objects` are the main object and the rejected rows, and `bytes` those of all objects. `worker` is the process, and
    `began` and `ended` are by its clock."""

    shard: int
    status: Literal["done", "adopted", "skipped", "failed", "stopped"]
    counts: ShardCounts = field(default_factory=ShardCounts)
    seconds: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    advised: bool = False
    notices: Mapping[str, int] = field(default_factory=dict)  # of this attempt: for the mark, not for the output
    sources: Sequence[Source] = ()
    mark: str = ""
    objects: Sequence[StoredObject] = ()
    bytes: int = 0
    worker: str = ""
    began: float = 0.0
    ended: float = 0.0


def mark_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the mark of a shard says of its rows and seconds; `report` has the fields of a `ShardReport`."""
    return {
        "shard": report["shard"],
        **report["counts"],
        "seconds": round(report["seconds"], 3),
        "timings": {name: round(value, 3) for name, value in report["timings"].items()},
        "notices": {**report["counts"]["notices"], **report["notices"]},
    }


def stats_json(
    report: ShardReport, objects: Sequence[StoredObject], version: str, files: StoredObject | None = None
) -> bytes:
    """The mark of a shard: counts, timings, and its objects with size and checksum. `report` says the bytes of all;
    `files` is the list of those that are files of images or codes (`ledger/file_lists.py`)."""
    values = mark_values(asdict(report)) | {"objects": [asdict(item) for item in objects], "bytes": report.bytes}
    if files:
        values["files"] = asdict(files)
    if report.sources:
        values["sources"] = [{"uri": it.uri, "size": it.size, "version": it.version} for it in report.sources]
    values["vqbeam_version"] = version
    return json.dumps(values, indent=1, sort_keys=True).encode()


def pack_codes(used: np.ndarray) -> str:
    """bool [K] -> hex bit set."""
    return np.packbits(used).tobytes().hex()
