"""An output folder as a whole: the marks of its shards, added up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transforms import storage
from transforms.errors import OutputDamaged, amount
from transforms.ledger.folder import ATTEMPTS, RETRY, STATS, SUCCESS
from transforms.ledger.marks import read_mark
from transforms.ledger.objects import QuickLook
from transforms.ledger.types import RowCounts

MARK = re.compile(r"\d{5,}\.json")
READERS = 32  # marks read at once; a store answers one in tens of milliseconds


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

    def add(self, mark: dict[str, Any]) -> None:
        """Add one mark, as `_read` gives it."""
        for name in ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions"):
            setattr(self, name, getattr(self, name) + mark[name])
        for name in ("errors", "filters", "notices", "timings"):
            mine = getattr(self, name)
            for key, value in mark[name].items():
                mine[key] = mine.get(key, 0) + value
        self.seconds += mark["seconds"]
        self.bytes += mark["bytes"]
        if mark["rows_rejected"]:
            self.shards_with_rejected.append(mark["shard"])
        self.code_bits |= int.from_bytes(bytes.fromhex(mark["codes_used"]), "little")


def mark_uris(output: str) -> list[str]:
    """The marks of an output folder, by shard; one listing."""
    found = (info.uri for info in storage.list_files(storage.join(output, STATS)))
    return [uri for uri in found if MARK.fullmatch(uri.rpartition("/")[2])]


def pending_shards(output: str, shards: int) -> list[int]:
    """Numbers of the shards that have no mark yet, or are to be done again, in order."""
    done = {uri.rsplit("/", 1)[-1] for uri in mark_uris(output)}
    again = requested_shards(output)
    return [index for index in range(shards) if f"{index:05d}.json" not in done or index in again]


def requested_shards(output: str) -> set[int]:
    """The shards that are to be done again, or whose new version has not taken its place yet (`ledger/retry.py`)."""
    names = (info.uri.rsplit("/", 1)[-1] for info in storage.list_files(storage.join(output, RETRY)))
    return {int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit()}


def total_of(output: str, look: bool = False) -> Totals:
    """Add up every mark of an output folder, also while others are written or taken back.

    With `look`, also look for damaged tables and tars (`ledger/objects.py`).
    """
    totals = Totals()
    read = partial(_read, look=QuickLook(output) if look else None)
    with ThreadPoolExecutor(READERS) as pool:
        for mark, damage in pool.map(read, mark_uris(output)):
            if damage:
                totals.damaged.append(damage)
            if mark is not None:
                totals.add(mark)
    return totals


def _read(uri: str, look: QuickLook | None) -> tuple[dict[str, Any] | None, str | None]:
    """A mark with the bytes of its objects in place of their list, which may be long; None if it is gone or damaged.
    And a message if it is damaged, or what it lists."""
    try:
        mark = read_mark(uri)
        damage = look.damage(mark) if look else None
        if damage and read_mark(uri).values != mark.values:  # done again meanwhile
            return _read(uri, look)
    except FileNotFoundError:
        return None, None
    except OutputDamaged as error:
        return None, str(error)
    values = {name: value for name, value in mark.values.items() if name != "objects"}
    if damage and storage.exists(storage.join(uri.rpartition(f"/{STATS}/")[0], RETRY, uri.rpartition("/")[2])):
        damage = None  # its new version takes its place just now, or in the next run
    return values | {"bytes": sum(item.size for item in mark.objects)}, damage


@dataclass(frozen=True)
class Outcome:
    """How far a job is: the sum of its marks, the shards without one and, if it has failed although all are done, the
    reason."""

    totals: Totals
    undone: list[int]
    failing: str | None

    @property
    def well(self) -> bool:
        return not self.undone and self.failing is None


def settle(output: str, shards: int, max_error_rate: float, look: bool = False) -> Outcome:
    """Add up a job of so many shards; create `_SUCCESS` if all of it is done and well, else remove it.

    Markers of attempts at shards that are done go: a run that ended between a commit and the removal left them. `look`
    as in `total_of`.
    """
    undone = pending_shards(output, shards)
    _clear_attempts(output, {f"{index:05d}" for index in undone})
    totals = total_of(output, look)
    outcome = Outcome(totals, undone, None if undone else failing(totals, max_error_rate))
    success = storage.join(output, SUCCESS)
    if outcome.well:
        storage.put_bytes(b"", success)
    else:
        storage.delete(success)
    return outcome


def _clear_attempts(output: str, undone: set[str]) -> None:
    for info in storage.list_files(storage.join(output, ATTEMPTS)):
        if info.uri.rsplit("/", 1)[-1].removeprefix(storage.PARTIAL_PREFIX).partition(".")[0] not in undone:
            storage.delete(info.uri)


def failing(totals: Totals, max_error_rate: float) -> str | None:
    """The reason why a run has failed although its shards are all done; None if it has not."""
    if totals.damaged:
        more = f" (and {amount(len(totals.damaged) - 1, 'more')})" if len(totals.damaged) > 1 else ""
        return totals.damaged[0] + more
    if totals.rows_read == 0:
        return "nothing was written: there was nothing to read"
    if totals.rows_written == 0:
        return "nothing was written"
    error_rate = totals.rows_rejected / totals.rows_read
    if error_rate > max_error_rate:
        return (
            f"rejected {totals.rows_rejected:,} of {amount(totals.rows_read, 'rows')} "
            f"({error_rate:.1%}), more than max_error_rate {max_error_rate:g}"
        )
    return None


def most_common(counts: dict[str, int]) -> Iterable[tuple[str, int]]:
    """Largest first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
