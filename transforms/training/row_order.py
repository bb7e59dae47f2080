"""The order in which training reads the rows of tables: a function of the tables, the seed and the epoch alone.

Row groups are shuffled, then the rows of some groups at a time. So what is held in memory is bounded, and reading can
begin anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# The finaliser of SplitMix64 (Steele, Lea, Flood 2014): its numbers are the same on every machine and for ever.
STEP, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Window:
    """Rows that are read together: the numbers of their row groups, in order, and where in the stream they begin."""

    groups: tuple[int, ...]
    start: int
    rows: int


@dataclass(frozen=True)
class RowOrder:
    """The stream of all epochs, one after another; `sizes` are the rows of each row group."""

    sizes: Sequence[int]
    shuffle: bool
    seed: int
    window_rows: int

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return sum(self.sizes)

    def windows(self, start: int, end: int) -> Iterator[Window]:
        """The windows that hold the rows [start, end) of the stream."""
        for epoch in range(start // self.rows, -(-end // self.rows)):
            position = epoch * self.rows
            for groups in self._packed(self._groups(epoch)):
                rows = sum(self.sizes[group] for group in groups)
                if position + rows > start and position < end:
                    yield Window(groups, position, rows)
                position += rows

    def rows_of(self, window: Window) -> np.ndarray:
        """int64 [N]: the rows of a window, counted through its groups, in the order of the stream."""
        numbers = np.arange(window.rows)
        if not self.shuffle:
            return numbers
        positions = numbers.astype(np.uint64) + np.uint64(window.start)
        return np.argsort(mixed(self.seed, 1, positions), kind="stable")

    def _groups(self, epoch: int) -> list[int]:
        numbers = np.arange(len(self.sizes))
        if self.shuffle:
            numbers = np.argsort(mixed(self.seed, 2 + epoch, numbers.astype(np.uint64)), kind="stable")
        return [int(number) for number in numbers if self.sizes[int(number)]]

    def _packed(self, groups: Sequence[int]) -> Iterator[tuple[int, ...]]:
        most = self.window_rows if self.shuffle else 1
        window: list[int] = []
        rows = 0
        for group in groups:
            window.append(group)
            rows += self.sizes[group]
            if rows >= most:
                yield tuple(window)
                window, rows = [], 0
        if window:
            yield tuple(window)


@dataclass(frozen=True)
class Share:
    """The rows of one reader of the stream: the stream is dealt out in batches, to the ranks in turn, and those of a
    rank to its workers in turn."""

    rank: int
    ranks: int
    worker: int
    workers: int
    batch_size: int

    def owned(self, positions: np.ndarray) -> np.ndarray:
        """bool [N]: which rows are this reader's, by their distance from where the stream began."""
        batches = positions // self.batch_size
        return (batches % self.ranks == self.rank) & (batches // self.ranks % self.workers == self.worker)

    def position(self, taken: int) -> int:
        """Where the row is that this reader takes after `taken` others."""
        batch, row = divmod(taken, self.batch_size)
        return ((batch * self.workers + self.worker) * self.ranks + self.rank) * self.batch_size + row


def mixed(seed: int, use: int, numbers: np.ndarray) -> np.ndarray:
    """uint64 [N] of uint64 [N]: numbers that look drawn, others for each seed and use."""
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed % 2**64], np.uint64) + STEP)
        key = _mix(key + np.uint64(use) * STEP)
        return _mix(key + (numbers + np.uint64(1)) * STEP)


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * FIRST
    values = (values ^ (values >> np.uint64(27))) * SECOND
    return values ^ (values >> np.uint64(31))
