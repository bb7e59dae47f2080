"""What the rows that a report looks at come to: sizes, lengths of captions, use of codes, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from transforms.batch import (
    CAPTION,
    CLIP_SCORE,
    ENCODING,
    HEIGHT,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PROMPT,
    PSNR,
    SAMPLE,
    WIDTH,
    first_caption,
)
from transforms.report.drawn import Place

SIZES = {"read": (ORIGINAL_WIDTH, ORIGINAL_HEIGHT), "written": (WIDTH, HEIGHT)}
COMMON = 8  # sizes that are listed


def columns_of(suffixes: Mapping[str, int]) -> set[str]:
    """The columns that are read. `suffixes` end the names of columns of codes, with the sizes of their codebooks."""
    sides = {name for pair in SIZES.values() for name in pair}
    of_models = {name + suffix for suffix in suffixes for name in (ENCODING, PSNR)}
    return {KEY, CAPTION, PROMPT, SAMPLE, CLIP_SCORE, *sides, *of_models}


@dataclass
class Measured:
    """Numbers of rows, and where the rows are; NaN where a row has none."""

    values: list[np.ndarray] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)  # shard and first position of each array

    def add(self, shard: int, first: int, values: np.ndarray) -> None:
        self.values.append(values)
        self.places.append((shard, first))

    def all(self) -> np.ndarray:
        """Those that are numbers."""
        values = np.concatenate(self.values) if self.values else np.zeros(0)
        return values[np.isfinite(values)]

    def extremes(self, number: int, *, least: bool) -> list[tuple[Place, float]]:
        """The rows with the least or greatest numbers, the utmost first."""
        if not self.values:
            return []
        values = np.concatenate(self.values)
        where = [
            Place(s, f + i) for (s, f), part in zip(self.places, self.values, strict=True) for i in range(len(part))
        ]
        order = np.argsort(values if least else -values, kind="stable")  # NaN comes last either way
        return [(where[i], float(values[i])) for i in order[:number].tolist() if np.isfinite(values[i])]


class Statistics:
    """Adds up rows, a part at a time; nothing is held of a row but some numbers."""

    def __init__(self, suffixes: Mapping[str, int]) -> None:
        self.rows = 0
        self.sizes: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in SIZES}
        self.letters: list[np.ndarray] = []
        self.words: list[np.ndarray] = []
        self.scores = Measured()
        self.psnr = {suffix: Measured() for suffix in suffixes}
        self.codes = {suffix: np.zeros(size, np.int64) for suffix, size in suffixes.items()}

    def add(self, shard: int, first: int, table: pa.Table) -> None:
        names = {*table.column_names}
        self.rows += table.num_rows
        for kind, (wide, high) in SIZES.items():
            if {wide, high} <= names:
                pairs = zip(table[wide].to_pylist(), table[high].to_pylist(), strict=True)
                self.sizes[kind].update(pair for pair in pairs if all(isinstance(n, int) and n > 0 for n in pair))
        for name in (PROMPT, CAPTION):
            if name in names:
                captions = [first_caption(cell) for cell in table[name].to_pylist()]
                self.letters.append(np.array([len(text) for text in captions if text], np.int64))
                self.words.append(np.array([len(text.split()) for text in captions if text], np.int64))
                break
        if CLIP_SCORE in names:
            self.scores.add(shard, first, _numbers(table[CLIP_SCORE]))
        for suffix, counts in self.codes.items():
            if PSNR + suffix in names:
                self.psnr[suffix].add(shard, first, _numbers(table[PSNR + suffix]))
            if ENCODING + suffix in names:
                for chunk in table[ENCODING + suffix].chunks:
                    count_codes(chunk, counts)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).fill_null(np.nan).to_numpy()


def count_codes(lists: pa.Array, counts: np.ndarray) -> None:
    """Add to `counts` how often each code occurs; what is no list of codes of the codebook is passed over."""
    if pt.is_list(lists.type) or pt.is_fixed_size_list(lists.type) or pt.is_large_list(lists.type):
        codes = lists.flatten().drop_null().to_numpy(zero_copy_only=False)
        counts += np.bincount(codes[(codes >= 0) & (codes < len(counts))], minlength=len(counts))


def common_sizes(sizes: Counter[tuple[int, int]]) -> list[tuple[str, int]]:
    """ "640 x 480" and how many, the most common first; the rest in one."""
    listed = [(f"{w:,} x {h:,}", number) for (w, h), number in sizes.most_common(COMMON)]
    rest = sizes.total() - sum(number for _, number in listed)
    return [*listed, (f"{len(sizes) - COMMON:,} other sizes", rest)] if rest else listed
