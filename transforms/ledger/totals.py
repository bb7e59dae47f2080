"""An output folder as a whole: the marks of its shards, added up."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from transforms import storage
from transforms.errors import OutputDamaged, amount
from transforms.ledger.digests import (
    BLOCK,
    FEWEST,
    CountedMark,
    Digest,
    digest_of,
    list_digests,
    read_digest,
    store_digest,
)
from transforms.ledger.folder import ATTEMPTS, FILES_BELOW, RETRY, STATS, SUCCESS
from transforms.ledger.marks import MARK, ListedMark, listed_marks, read_mark
from transforms.ledger.objects import QuickLook
from transforms.ledger.sums import Totals
from transforms.ledger.types import StoredObject, shard_name, shard_number

BLOCKS = 8  # of marks that are added up at once
READERS = 32  # marks read at once; a store answers one in tens of milliseconds


def mark_uris(output: str) -> list[str]:
    """The marks of an output folder, by shard; one listing."""
    return [mark.uri for mark in listed_marks(output)]


def pending_shards(output: str, shards: int) -> list[int]:
    """Numbers of the shards that have no mark yet, or are to be done again, in order."""
    done = bytearray(shards)
    for mark in listed_marks(output):
        if mark.shard < shards:
            done[mark.shard] = 1
    return _undone(output, done)


def _undone(output: str, done: bytearray) -> list[int]:
    for index in requested_shards(output):
        if index < len(done):
            done[index] = 0
    return [index for index, is_done in enumerate(done) if not is_done]


def requested_shards(output: str) -> set[int]:
    """The shards that are to be done again, or whose new version has not taken its place yet (`ledger/retry.py`)."""
    names = (info.uri.rpartition("/")[2] for info in storage.list_files(storage.join(output, RETRY)))
    return {shard_number(named[1]) for named in map(MARK.fullmatch, names) if named}


def total_of(output: str, look: bool = False) -> Totals:
    """Add up every mark of an output folder, also while others are written or taken back.

    With `look`, also look for damaged tables and tars (`ledger/objects.py`).
    """
    return _add_up(output, listed_marks(output), look)


def _add_up(output: str, marks: Iterable[ListedMark], look: bool, *, keep: bool = False) -> Totals:
    """The sum over marks, a thousand at a time. `keep`: what was read is put into digests, for the next time."""
    totals = Totals()
    digests = list_digests(output)
    with ThreadPoolExecutor(BLOCKS) as blocks, ThreadPoolExecutor(READERS) as readers:
        quick = QuickLook(output) if look else None
        waiting: deque[Future[Totals]] = deque()
        for number, listed in groupby(marks, lambda mark: mark.shard // BLOCK):
            block = _Block(output, number, tuple(listed), digests.get(number, ()), quick, readers)
            waiting.append(blocks.submit(block.add_up, keep))
            if len(waiting) > BLOCKS:
                totals.merge(waiting.popleft().result())
        for one in waiting:
            totals.merge(one.result())
    return totals


@dataclass(frozen=True)
class _Block:
    """The marks of a thousand shards, and the digests of some of them."""

    output: str
    number: int
    marks: tuple[ListedMark, ...]
    digests: Sequence[str]
    look: QuickLook | None
    readers: Executor

    def add_up(self, keep: bool) -> Totals:
        left = {mark.shard: mark for mark in self.marks}
        used: list[Digest] = []
        for digest in filter(None, map(read_digest, self.digests)):
            there = digest.marks()
            holds = all(shard in left and left[shard].identity == mark for shard, mark in there.items())
            if holds and (self.look is None or not any(map(self.look.damage, digest.looks()))):
                used.append(digest)
                for shard in there:
                    del left[shard]
        read = list(self.readers.map(partial(_read, look=self.look), (mark.uri for mark in left.values())))
        damaged = [damage for _, damage in read if damage]
        found = [CountedMark(mark.identity, *one) for mark, (one, _) in zip(left.values(), read, strict=True) if one]
        whole = digest_of(found, used)
        if keep and len(found) + len(self.digests) > FEWEST and not damaged and all(mark.identity for mark in found):
            self._replace(whole)
        whole.totals.damaged = damaged
        return whole.totals

    def _replace(self, digest: Digest) -> None:
        stored = store_digest(self.output, self.number, digest)
        for uri in self.digests:
            if uri != stored:
                storage.delete(uri)


def _read(uri: str, look: QuickLook | None) -> tuple[tuple[dict[str, Any], list[StoredObject]] | None, str | None]:
    """The values of a mark, with the bytes of its objects in place of their list, which may be long, and those that are
    no files of images or codes; None if it is gone or damaged. And a message if it is damaged, or what it lists."""
    try:
        mark = read_mark(uri)
        damage = look.damage(mark) if look else None
        if damage and read_mark(uri).values != mark.values:  # done again meanwhile
            return _read(uri, look)
    except FileNotFoundError:
        return None, None
    except OutputDamaged as error:
        return None, str(error)
    values = {name: value for name, value in mark.values.items() if name not in ("objects", "files")}
    if damage and storage.exists(storage.join(uri.rpartition(f"/{STATS}/")[0], RETRY, uri.rpartition("/")[2])):
        damage = None  # its new version takes its place just now, or in the next run
    values["bytes"] = mark.bytes
    return (values, [item for item in mark.objects if not item.path.startswith(FILES_BELOW)]), damage


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
    done = bytearray(shards)
    totals = _add_up(output, _noted(listed_marks(output), done), look, keep=True)
    undone = _undone(output, done)
    _clear_attempts(output, {*map(shard_name, undone)})
    outcome = Outcome(totals, undone, None if undone else failing(totals, max_error_rate))
    success = storage.join(output, SUCCESS)
    if outcome.well:
        storage.put_bytes(b"", success)
    else:
        storage.delete(success)
    return outcome


def _noted(marks: Iterable[ListedMark], done: bytearray) -> Iterator[ListedMark]:
    """The same marks; each is noted in `done`."""
    for mark in marks:
        if mark.shard < len(done):
            done[mark.shard] = 1
        yield mark


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
            f"({error_rate:.1%}), more than max_error_rate {max_error_rate:g}; if that is right, accept them with "
            f"max_error_rate {math.ceil(100 * error_rate) / 100:g}"
        )
    return None


def most_common(counts: dict[str, int]) -> Iterable[tuple[str, int]]:
    """Largest first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
