"""What marks add up to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from transforms.ledger.types import RowCounts

NUMBERS = ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions", "seconds", "bytes")
COUNTS = ("errors", "filters", "notices", "timings")


@dataclass
class Totals(RowCounts):
    """Sums over the marks. `code_bits` has a bit for each code id in use."""

    timings: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    code_bits: int = 0
    shards_with_rejected: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # a message for each damaged mark, table or tar

    @property
    def codes_used(self) -> int:
        return self.code_bits.bit_count()

    def add(self, mark: Mapping[str, Any]) -> None:
        """Add one mark: its values, with the `bytes` of its objects in place of their list."""
        self._add(mark)
        if mark["rows_rejected"]:
            self.shards_with_rejected.append(mark["shard"])
        self.code_bits |= int.from_bytes(bytes.fromhex(mark["codes_used"]), "little")

    def merge(self, other: Totals) -> None:
        """Add the sums over other marks."""
        self._add(vars(other))
        self.code_bits |= other.code_bits
        self.shards_with_rejected += other.shards_with_rejected
        self.damaged += other.damaged

    def _add(self, values: Mapping[str, Any]) -> None:
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + values[name])
        for name in COUNTS:
            mine = getattr(self, name)
            for key, value in values[name].items():
                mine[key] = mine.get(key, 0) + value

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "code_bits": f"{self.code_bits:x}"}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Totals:
        values = json.loads(text)
        return cls(**{**values, "code_bits": int(values["code_bits"], 16)})
