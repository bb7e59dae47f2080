"""What a shard has to say when it is through: counts that are part of its output, and timings that are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

STAGES = ("read", "decode", "model", "write")


@dataclass
class RowCounts:
    """`rows_read` = written + rejected + filtered. `notices` counts what was left out of rows though nobody asked for
    that, in words."""

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
    """Rows of one shard. Stored inside the shard's own output, so nothing here may depend on time, machine or attempt.
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


Status = Literal["done", "adopted", "skipped", "failed", "stopped"]


@dataclass(frozen=True)
class ShardReport:
    """What `process()` returns for a shard: "done" here, "adopted" from another attempt, "skipped" because its mark
    was there, "failed" for `reason`, or "stopped"."""

    shard: int
    status: Status
    counts: ShardCounts = field(default_factory=ShardCounts)
    seconds: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def stats_json(report: ShardReport, objects: list[StoredObject], version: str) -> bytes:
    """The mark of a shard: counts, timings and every object with size and checksum."""
    values: dict[str, Any] = {"shard": report.shard, **asdict(report.counts)}
    values["seconds"] = round(report.seconds, 3)
    values["timings"] = {name: round(value, 3) for name, value in report.timings.items()}
    values["objects"] = [asdict(item) for item in objects]
    values["vqbeam_version"] = version
    return json.dumps(values, indent=1, sort_keys=True).encode()


def pack_codes(used: np.ndarray) -> str:
    """bool [K] -> hex bit set."""
    return np.packbits(used).tobytes().hex()


def unpack_codes(text: str) -> np.ndarray:
    """Hex bit set -> bool [K rounded up to 8]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)
