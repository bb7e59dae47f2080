"""A sample of a run as one line for people, which fits the columns that there are."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.sample import Sample
from transforms.errors import amount


def line(sample: Sample, columns: int = 0) -> str:
    """ "12/40 shards, 3,120/12,000 images, 412/s, 2:10 left, 3 rejected"; with fewer `columns` than it takes, the parts
    that matter least are left out."""
    parts = _parts(sample)
    while columns and len(parts) > 1 and len(_joined(parts)) > columns:
        parts.remove(max(parts))
    return _joined(parts)


def _joined(parts: Sequence[tuple[int, int, str]]) -> str:
    return ", ".join(text for _, _, text in sorted(parts, key=lambda part: part[1]))


def _parts(sample: Sample) -> list[tuple[int, int, str]]:
    """What is to be said, the most important first: its rank, its place in the line, and the text."""
    expected = sample.expected
    shards = f"{sample.shards_done:,}/{expected.shards:,} shards"
    rejected = f"{sample.rows_rejected:,} rejected" if sample.rows_rejected else ""
    told = [
        (1, _count(sample) or shards),
        (5, _doing(sample)),
        (4, per_time(sample.rows_per_second) if sample.rows_per_second else ""),
        (2, f"{clock(sample.seconds_left)} left" if sample.seconds_left else ""),
        (7, rejected),
        (8, f"{sample.rows_filtered:,} filtered" if sample.rows_filtered else ""),
        (3, f"{amount(sample.shards_failed, 'shards')} FAILED" if sample.shards_failed else ""),
    ]
    if _count(sample) and expected.shards > 1:
        told.insert(0, (6, shards))
    return [(rank, place, text) for place, (rank, text) in enumerate(told) if text]


def _count(sample: Sample) -> str:
    """Rows that are done, of how many; of an engine that does not tell, those that are written."""
    unit = sample.expected.unit
    if sample.rows_done is None:
        return amount(sample.rows_written, unit) if sample.rows_written else ""
    if sample.waited is not None and sample.rows is None:
        return ""
    done = f"{int(sample.rows_done + 1e-6):,}"
    if sample.rows is None:
        return f"{done} {unit}"
    about = "" if sample.expected.rows is not None else "~"
    return f"{done}/{about}{round(sample.rows):,} {unit}"


def _doing(sample: Sample) -> str:
    if sample.idle:
        return f"nothing new for {clock(sample.idle)}"
    text = f"{sample.doing} {sample.step:,}/{sample.steps:,}" if sample.steps else sample.doing
    return f"{text}, {clock(sample.waited)}" if text and sample.waited is not None and sample.waited >= 1 else text


def per_time(rate: float) -> str:
    """ "412/s", "24/min" or "12/h"."""
    for each, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if rate * each >= 1 or unit == "h":
            break
    number = rate * each
    return f"{number:,.0f}/{unit}" if number >= 10 else f"{number:.1f}/{unit}"


def clock(seconds: float) -> str:
    """ "2:05", "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
