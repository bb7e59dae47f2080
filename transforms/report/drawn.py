"""Which shards, parts and rows a report looks at: drawn by a seed, so that a folder and a seed give the same page."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import pyarrow as pa

from transforms.batch import CAPTION, CLIP_SCORE, KEY, SAMPLE, first_caption

SHARDS = 16  # whose rows are looked at
ROWS = 65_536  # of all of them, about: whole row groups are read
IMAGES_OF_A_GROUP = 16


class Budget:
    """Seconds that a part of the report may take, by the clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def is_spent(self) -> bool:
        return time.monotonic() > self._end


def drawn_shards(done: np.ndarray, seed: int, most: int = SHARDS) -> list[int]:
    """Some of the shards that are done, in order."""
    if len(done) <= most:
        return sorted(done.tolist())
    return sorted(np.random.default_rng(seed).choice(done, most, replace=False).tolist())


def drawn_parts(parts: Sequence[range], seed: int, shard: int, rows: int) -> list[range]:
    """Parts of a shard with about `rows` rows, at least one, in order."""
    order = np.random.default_rng([seed, shard]).permutation(len(parts)).tolist()
    taken: list[range] = []
    for number in order:
        if taken and sum(map(len, taken)) + len(parts[number]) > rows:
            break
        taken.append(parts[number])
    return sorted(taken, key=lambda part: part.start)


@dataclass(frozen=True, order=True)
class Place:
    """A row: the shard, and its position in the table or tar."""

    shard: int
    position: int


@dataclass(frozen=True)
class Group:
    """Rows that are shown together: a row, or the images of one prompt or input."""

    key: str
    places: tuple[Place, ...]


class Draw:
    """Takes the rows that are looked at as they come and keeps `most` groups at random, each as likely as any other."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._seed = most, seed
        self._kept: list[tuple[float, int, Group]] = []
        self._number = count()

    def add(self, shard: int, part: range, table: pa.Table) -> None:
        if not table.num_rows:
            return
        weights = np.random.default_rng([self._seed, shard, part.start]).random(table.num_rows)
        keys = table[KEY].to_pylist()
        starts = _starts(table)
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            rank = -float(weights[start])
            if len(self._kept) < self._most or rank > self._kept[0][0]:
                places = tuple(Place(shard, part.start + i) for i in range(start, stop))
                entry = (rank, next(self._number), Group(str(keys[start]), places[:IMAGES_OF_A_GROUP]))
                (heapq.heappush if len(self._kept) < self._most else heapq.heappushpop)(self._kept, entry)

    def groups(self) -> list[Group]:
        """In the order of their weights, which is none."""
        return [group for _, _, group in sorted(self._kept, reverse=True)]


def _starts(table: pa.Table) -> list[int]:
    """Where groups begin: images of one prompt or input have one key; where rows have scores, those that follow one
    another with the same caption are shown together."""
    if SAMPLE in table.column_names:
        same = table[KEY].to_pylist()
    elif CLIP_SCORE in table.column_names and CAPTION in table.column_names:
        same = [first_caption(cell) or None for cell in table[CAPTION].to_pylist()]
    else:
        return list(range(table.num_rows))
    return [i for i, value in enumerate(same) if i == 0 or value is None or value != same[i - 1]]
