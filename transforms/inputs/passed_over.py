"""Files of the input that are not read: counted by what they are, some of them by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

NAMES = 20  # of each kind that are kept
KINDS = 8  # that a line shows
NO_ENDING, ODD_ENDING = "without an ending", "with odd endings"
ENDING = re.compile(r"[a-z0-9_+~-]{1,12}")


class PassedOver:
    """Counts by a label, such as ".heic", and the first names of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, uri: str, label: str = "") -> None:
        """Without a `label`, a file is counted by its ending."""
        label = label or ending_label(uri)
        self.counts[label] += 1
        names = self.names.setdefault(label, [])
        if len(names) < NAMES:
            names.append(uri)

    def update(self, other: PassedOver) -> None:
        for label, names in other.names.items():
            self.counts[label] += other.counts[label]
            mine = self.names.setdefault(label, [])
            mine += names[: NAMES - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """For the plan; empty if nothing was passed over. `more` is how many are not named."""
        if not self.counts:
            return {}
        named = sum(map(len, self.names.values()))
        return {"counts": dict(self.counts), "names": self.names, "more": self.counts.total() - named}


def ending_label(uri: str) -> str:
    name = uri.rpartition("/")[2]
    base, dot, ending = name.rpartition(".")
    if not dot or not base:
        return NO_ENDING
    return f".{ending.lower()}" if ENDING.fullmatch(ending.lower()) else ODD_ENDING


def passed_over_text(stored: Mapping[str, Any]) -> str:
    """One line of what `to_json` gave: "2 .heic, 1 .xmp"; empty for nothing."""
    counts = Counter(stored.get("counts", {}))
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:KINDS]
    parts = [f"{count:,} {label}" for label, count in shown]
    rest = counts.total() - sum(count for _, count in shown)
    return ", ".join([*parts, *([f"{rest:,} others"] if rest else [])])
