"""Shards that are done again: the new version is made beside the old one, and takes its place once it is whole.

A request, a small file, says that a shard is to be done again. An attempt then writes into a folder of its own, which
mirrors the output folder, up to a mark. From then on the new version counts: its objects replace the old ones, then its
mark the old mark, and the request goes. So a run may be cut off anywhere, and a whole version of the shard is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from transforms import storage
from transforms.errors import OutputDamaged, RetryRefused, amount
from transforms.ledger.file_lists import listed_objects
from transforms.ledger.folder import REDONE, RETRY, SUCCESS, OutputFolder
from transforms.ledger.marks import Mark, read_mark
from transforms.ledger.rejected import rejected_of
from transforms.ledger.totals import requested_shards, total_of
from transforms.ledger.types import ShardCounts, Source, shard_name

WRITERS = 16


def request_rejected(output: str) -> int:
    """Have the shards that rejected rows done again; returns how many."""
    shards = total_of(output).shards_with_rejected
    if shards:
        storage.delete(storage.join(output, SUCCESS))
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda index: Redoing(OutputFolder(output), shard_name(index)).request(), shards))
    return len(shards)


def withdraw_requests(output: str) -> None:
    """Let the shards that were to be done again be, except those whose new version is whole; tidy up after others."""
    kept: set[str] = set()
    for index in requested_shards(output):
        redoing = Redoing(OutputFolder(output), shard_name(index))
        if redoing.finished() is None:
            redoing.end()
        else:
            kept.add(redoing.folder)
    home = storage.join(output, REDONE)
    found = {info.uri[len(home) + 1 :].split("/")[0] for info in storage.list_files(home)}
    for folder in {storage.join(home, shard) for shard in found} - kept:
        storage.delete_folder(folder)


@dataclass(frozen=True)
class Redoing:
    """The files by which one shard is done again."""

    output: OutputFolder
    shard: str

    @property
    def uri(self) -> str:
        return storage.join(self.output.root, RETRY, f"{self.shard}.json")

    @property
    def folder(self) -> str:
        return storage.join(self.output.root, REDONE, self.shard)

    def request(self) -> None:
        storage.put_new(b"{}\n", self.uri)

    def requested(self) -> bool:
        return storage.exists(self.uri)

    def beside(self, sources: Sequence[Source]) -> OutputFolder:
        """The folder for a new version, which is another one for other versions of the sources."""
        versions = json.dumps([(source.uri, source.size, source.version) for source in sources])
        return OutputFolder(storage.join(self.folder, hashlib.sha256(versions.encode()).hexdigest()[:16]))

    def finished(self) -> OutputFolder | None:
        """The folder of a new version that is whole; None if there is none yet."""
        end = f"/_vqbeam/stats/{self.shard}.json"
        for info in storage.list_files(self.folder):
            if info.uri.endswith(end):
                return OutputFolder(info.uri[: -len(end)])
        return None

    def take(self, new: OutputFolder, sweep: Callable[[set[str]], None]) -> ShardCounts | None:
        """Put a whole new version in the place of the old one; returns its counts.

        Returns None if it is not whole after all, and removes it. `sweep` removes objects of the shard that are none of
        the given paths. Raises `RetryRefused` if rows would be lost.
        """
        try:
            mark = read_mark(new.stats(self.shard))
            objects = listed_objects(new.root, mark)
            sizes = {new.relative(info.uri): info.size for info in storage.list_files(new.root)}
            whole = all(sizes.get(item.path) == item.size for item in objects)
        except (FileNotFoundError, OutputDamaged):
            whole = False
        if not whole:
            storage.delete_folder(new.root)
            return None
        if "sources" not in mark.values:
            self._check_nothing_lost(new, mark)
        main, *others = paths = [item.path for item in objects]
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda path: self._replace(new, path), others))
        self._replace(new, main)
        storage.put_bytes(storage.read_bytes(new.stats(self.shard)), self.output.stats(self.shard))
        sweep(set(paths))
        self.end()
        return mark.counts

    def end(self) -> None:
        """Remove the request, then what was made for it."""
        storage.delete(self.uri)
        storage.delete_folder(self.folder)

    def _replace(self, new: OutputFolder, path: str) -> None:
        storage.replace_with(storage.join(new.root, path), storage.join(self.output.root, path))

    def _check_nothing_lost(self, new: OutputFolder, mark: Mark) -> None:
        """Raise `RetryRefused` if the new version rejects a row that the old one has, from the same sources."""
        if not mark.counts.rows_rejected:
            return
        try:
            old = read_mark(self.output.stats(self.shard))
        except (FileNotFoundError, OutputDamaged):
            return
        if old.values.get("sources"):
            return
        rejected, again = _reasons(self.output, old), _reasons(new, mark)
        lost = [row for row in again if row not in rejected]
        if lost:
            storage.delete_folder(new.root)
            raise RetryRefused(
                f"done again, it would reject {amount(len(lost), 'rows')} that it has, such as {lost[0][0]} "
                f"({': '.join(again[lost[0]])}), and so keeps what it has: use retry_rejected once these can be read"
            )


def _reasons(folder: OutputFolder, mark: Mark) -> dict[tuple[str, str], tuple[str, str]]:
    """The rejected rows of a mark, by URI and key: code and message of each."""
    return {(row["uri"], row["key"]): (row["error"], row["message"]) for row in rejected_of(folder.root, mark)}
