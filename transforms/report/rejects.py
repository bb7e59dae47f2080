"""Examples of rejected rows for each reason, from the lists of some shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from transforms.errors import ShardFailed
from transforms.ledger.rejected import rejected_rows
from transforms.report.drawn import Budget, drawn_shards

EACH = 5
SHARDS = 32  # whose lists are looked at
ROWS = 4096  # of a list


@dataclass(frozen=True)
class Rejects:
    """`examples` by code; `shards` have been looked at, of those `with_some`."""

    examples: Mapping[str, Sequence[Mapping[str, Any]]]
    shards: int
    with_some: int
    problem: str = ""


def find_rejects(output: str, with_some: Sequence[int], codes: Mapping[str, int], seed: int, budget: Budget) -> Rejects:
    """At most `EACH` examples of each of `codes`, which says how many there are."""
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    looked = 0
    problem = ""
    for shard in drawn_shards(np.array(with_some, np.int64), seed, SHARDS):
        if budget.is_spent or all(len(found[code]) >= min(EACH, number) for code, number in codes.items()):
            break
        looked += 1
        try:
            for row in islice(rejected_rows(output, [shard]), ROWS):
                if len(found[row["error"]]) < EACH:
                    found[row["error"]].append(row)
        except ShardFailed as error:
            problem = str(error)
    return Rejects(found, looked, len(with_some), problem)
