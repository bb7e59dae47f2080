"""Charts as plain geometry in a box of 360 x 170 units; `page.html` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

import numpy as np

from transforms.report.speed import Speed

LEFT, RIGHT, TOP, BOTTOM = 46.0, 352.0, 8.0, 146.0
BARS = 24
LETTER = 6.2  # the width of one, about


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    told: str


@dataclass(frozen=True)
class Line:
    """`points` as SVG's polyline takes them, one text for each piece without a gap."""

    name: str
    number: int
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    title: str
    across: str  # what the horizontal axis counts
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()


def bars(title: str, across: str, labels: Sequence[str], counts: Sequence[int], told: Sequence[str]) -> Chart:
    """A bar for each count; as many of the labels are written as there is room for."""
    top, y_ticks = _scale(max(counts, default=0))
    step = (RIGHT - LEFT) / max(1, len(counts))
    drawn = []
    for i, (count, text) in enumerate(zip(counts, told, strict=True)):
        height = (BOTTOM - TOP) * count / top
        drawn.append(Bar(LEFT + i * step + step * 0.08, BOTTOM - height, step * 0.84, height, text))
    every = max(1, math.ceil(len(labels) * (max(map(len, labels), default=1) + 1.5) * LETTER / (RIGHT - LEFT)))
    ticks = tuple(Tick(LEFT + (i + 0.5) * step, label) for i, label in enumerate(labels) if i % every == 0)
    return Chart(title, across, ticks, y_ticks, bars=tuple(drawn))


def histogram(title: str, across: str, values: np.ndarray, *, whole: bool = False) -> Chart | None:
    """How often numbers occur, in bars of equal width; None if there are no numbers."""
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    step = _round_up((high - low) / BARS or (1.0 if whole else max(abs(high), 1e-3) / 10))
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.floor(low / step)
    number = math.floor(high / step) - first + 1
    edges = (first + np.arange(number + 1)) * step
    counts = np.bincount((np.floor(values / step) - first).astype(int).clip(0, number - 1), minlength=number)
    names = [_short(edge) for edge in edges]
    upto = [_short(edge - 1) if whole else name for edge, name in zip(edges, names, strict=True)]
    spans = [names[i] if whole and step == 1 else f"{names[i]} to {upto[i + 1]}" for i in range(number)]
    told = [f"{span}: {count:,}" for span, count in zip(spans, counts.tolist(), strict=True)]
    return bars(title, across, names[:-1], counts.tolist(), told)


RATIOS = ("≤1:3", "1:2", "2:3", "3:4", "1:1", "4:3", "3:2", "2:1", "≥3:1")
RATIO_EDGES = np.array([-np.inf, 0.4, 0.58, 0.71, 0.87, 1.15, 1.42, 1.72, 2.5, np.inf])


def ratios(title: str, sizes: Mapping[tuple[int, int], int]) -> Chart:
    """Images by the nearest usual ratio of width to height."""
    counts = [0] * len(RATIOS)
    for (width, height), number in sizes.items():
        counts[int(np.searchsorted(RATIO_EDGES, width / height, side="right")) - 1] += number
    told = [f"about {ratio}: {count:,}" for ratio, count in zip(RATIOS, counts, strict=True)]
    return bars(title, "width : height", RATIOS, counts, told)


def code_use(title: str, counts: np.ndarray) -> Chart:
    """How many codes are used how often: never, once, 2 to 3, 4 to 7 times and so on."""
    most = int(counts.max(initial=0))
    edges = [0, 1, *(2**power for power in range(1, max(1, most.bit_length()) + 1))]
    numbers, labels = [], []
    for low, high in pairwise(edges):
        numbers.append(int(((counts >= low) & (counts < high)).sum()))
        labels.append(str(low) if high - low == 1 else f"{_short(low)} to {_short(high - 1)}")
    told = [f"used {label} times: {number:,} codes" for label, number in zip(labels, numbers, strict=True)]
    return bars(title, "times that a code is used", [label.partition(" to ")[0] for label in labels], numbers, told)


def speeds(title: str, unit: str, speed: Speed) -> Chart | None:
    """Rates over time on a logarithmic scale: of the whole, and of each stage; None if nothing was written."""
    named = {f"all, {unit}/s": speed.whole, **speed.stages}
    rates = {name: np.where(np.isfinite(values) & (values > 0), values, np.nan) for name, values in named.items()}
    there = np.concatenate([values[np.isfinite(values)] for values in rates.values()])
    if not len(there):
        return None
    low = math.floor(math.log10(there.min()))
    high = max(low + 1, math.ceil(math.log10(there.max())))
    y_ticks = [Tick(_between(power, low, high, BOTTOM, TOP), _short(10.0**power)) for power in range(low, high + 1)]
    middles = (speed.times[:-1] + speed.times[1:]) / 2
    x = [_between(time, speed.times[0], speed.times[-1], LEFT, RIGHT) for time in middles.tolist()]
    lines = []
    for number, (name, values) in enumerate(rates.items()):
        pieces: list[list[str]] = [[]]
        for at, value in zip(x, values.tolist(), strict=True):
            if math.isnan(value):
                pieces.append([])
            else:
                pieces[-1].append(f"{at:.1f},{_between(math.log10(value), low, high, BOTTOM, TOP):.1f}")
        alone = [[*piece, piece[0]] if len(piece) == 1 else piece for piece in pieces if piece]  # a dot
        if alone:
            lines.append(Line(name, number, tuple(" ".join(piece) for piece in alone)))
    span = float(speed.times[-1] - speed.times[0])
    shown = "%H:%M:%S" if span < 7200 else "%d %b %H:%M"
    texts = [datetime.fromtimestamp(end, timezone.utc).strftime(shown) for end in speed.times[[0, -1]].tolist()]
    half = len(texts[0]) * LETTER / 2
    ticks = [Tick(LEFT + half, texts[0]), Tick(RIGHT - half, texts[1])]
    return Chart(title, "time (UTC)", tuple(ticks), tuple(y_ticks), lines=tuple(lines))


def _between(value: float, low: float, high: float, start: float, stop: float) -> float:
    return start + (stop - start) * (value - low) / ((high - low) or 1.0)


def _scale(most: int) -> tuple[float, tuple[Tick, ...]]:
    step = max(1.0, _round_up(max(most, 1) / 3))
    top = step * max(1, math.ceil(most / step))
    marks = np.arange(0, top + step / 2, step)
    return top, tuple(Tick(BOTTOM - (BOTTOM - TOP) * mark / top, _short(mark)) for mark in marks.tolist())


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if letter != 'k' else 1e3):.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
