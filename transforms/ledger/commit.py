"""The shard transaction: one object of a shard, its table or tar, is put create-only and decides; the mark comes last.

An attempt that comes second adopts the objects of the first. So a shard may be run twice, at once, or be cut off
anywhere, and one consistent set of objects remains.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from transforms import storage
from transforms.errors import OutputDamaged, ShardFailed
from transforms.ledger.file_lists import store_list
from transforms.ledger.folder import FILES_BELOW, STATS, OutputFolder, is_inside
from transforms.ledger.marks import REPAIR, identity_of, read_mark
from transforms.ledger.seal import broken_seal
from transforms.ledger.types import ShardCounts, ShardReport, StoredObject, shard_number, stats_json

READERS = 16  # objects of an adopted shard read at once


@dataclass(frozen=True)
class MainObject:
    """The object of each shard that decides: `folder` below the output folder, and the suffix of its name.

    `read` reads all of it, and returns the counts that it carries, as JSON, and the paths of its other files.
    With `files` images or codes are files in a folder for each shard below that folder, else they are in the object.
    """

    folder: str
    suffix: str
    read: Callable[[IO[bytes]], tuple[str, list[str]]]
    files: str = ""


@dataclass(frozen=True)
class ShardTransaction:
    """The objects of one shard below an output folder."""

    folder: OutputFolder
    shard: str
    main: MainObject
    version: str  # of vqbeam, for the mark
    job: str = ""  # for the seal (`ledger/seal.py`)

    @property
    def main_uri(self) -> str:
        return storage.join(self.folder.root, self.main.folder, f"{self.shard}.{self.main.suffix}")

    def mark(self) -> ShardCounts | None:
        """The counts in the mark of this shard; None while it is not done."""
        uri = self.folder.stats(self.shard)
        try:
            return read_mark(uri).counts
        except FileNotFoundError:
            return None

    def adopt(self) -> ShardReport | None:
        """Complete the mark from a main object that is already there; None if it is missing."""
        if not storage.exists(self.main_uri):
            return None
        counts, objects = self._stored()
        return self._complete(ShardReport(shard_number(self.shard), "adopted", counts), objects)

    def commit(self, report: ShardReport, local: Path, errors: Path | None, images: list[StoredObject]) -> ShardReport:
        """Put the rejected rows, then the main object, then the mark. `images` are stored already.

        Returns the report of the attempt whose objects are stored: this one's, or the winner's with status "adopted".
        """
        objects = list(images)
        if errors is not None:
            uri = storage.join(self.folder.root, self.errors_name(errors))
            storage.put_new(errors, uri)
            objects.append(self._object(errors, uri))
        main = self._object(local, self.main_uri)
        if storage.put_new(local, self.main_uri):
            return self._complete(report, [main, *objects])
        counts, stored = self._stored()
        return self._complete(ShardReport(report.shard, "adopted", counts, report.seconds, report.timings), stored)

    def errors_name(self, errors: Path | None) -> str:
        """The path below the output folder that the rejected rows will have."""
        if errors is None:
            return ""
        return self.folder.relative(self.folder.errors(self.shard, storage.sha256(str(errors))))

    def _complete(self, report: ShardReport, objects: list[StoredObject]) -> ShardReport:
        if self.main.files:
            storage.sync_folder(self.folder.files(self.main.files, self.shard))
        files = [item for item in objects if item.path.startswith(FILES_BELOW)]
        own = tuple(item for item in objects if not item.path.startswith(FILES_BELOW))
        listed = store_list(self.folder, self.shard, files) if files else None
        self.sweep({item.path for item in (*objects, listed) if item})
        whole = replace(report, objects=own, bytes=sum(item.size for item in objects))
        mark, data = self.folder.stats(self.shard), stats_json(whole, own, self.version, listed)
        first = storage.put_new(data, mark)
        storage.delete_partials(mark)
        return replace(whole, mark=identity_of(data, mark)) if first else report

    def sweep(self, kept: set[str]) -> None:
        """Delete what other attempts at this shard left behind. They have lost: the main object names `kept`."""
        prefixes = [self.folder.errors_prefix(self.shard)]
        if self.main.files:
            prefixes.append(self.folder.file_lists_prefix(self.shard))
        found = [info for prefix in prefixes for info in storage.iterate_files(f"{prefix}*")]
        if self.main.files:
            found += storage.list_files(self.folder.files(self.main.files, self.shard))
        for info in found:
            if self.folder.relative(info.uri) not in kept:
                storage.delete(info.uri)
        storage.delete_partials(self.main_uri)
        for prefix in prefixes:
            storage.delete_partials(prefix)

    def _object(self, local: Path, uri: str) -> StoredObject:
        return StoredObject(self.folder.relative(uri), os.path.getsize(local), storage.sha256(str(local)))

    def _stored(self) -> tuple[ShardCounts, list[StoredObject]]:
        """Counts and objects as the store has them. Raises `OutputDamaged` if they are not what the job wrote."""
        with storage.open_read(self.main_uri) as file:
            try:
                text, images = self.main.read(file)
                counts = ShardCounts.from_json(text)
                paths = [self.folder.relative(self.main_uri), *(images if self.main.files else [])]
                if counts.errors_file:
                    paths.append(counts.errors_file)
                strays = [path for path in paths if not is_inside(path)]
                if strays:
                    raise ValueError(f"it names {strays[0]}")
                with ThreadPoolExecutor(READERS) as pool:
                    objects = list(pool.map(self._stored_object, paths))
                reason = self._stranger(text, file, objects, len(images) if self.main.files else 0)
            except ShardFailed:  # the store's
                raise
            except Exception as error:  # each format raises its own types
                raise self._damaged(f"{self.main_uri} was not written by vqbeam, or is damaged: {error}") from error
        if reason:
            raise self._damaged(f"{self.main_uri} is not taken for shard {self.shard}: {reason}")
        return counts, objects

    def _stranger(self, text: str, file: IO[bytes], objects: list[StoredObject], images: int) -> str | None:
        """Why the main object is not this shard's; None if it is."""
        if self.job:
            return broken_seal(text, self.job, self.shard, file, objects[1 : 1 + images])
        for info in storage.list_files(storage.join(self.folder.root, STATS)):  # all that can be told without a seal
            if info.uri.endswith(".json") and info.uri != self.folder.stats(self.shard):
                with suppress(FileNotFoundError, OutputDamaged):
                    other = read_mark(info.uri).objects[0]
                    if other.sha256 == objects[0].sha256:
                        return f"it is a copy of {other.path}"
        return None

    def _damaged(self, message: str) -> OutputDamaged:
        return OutputDamaged(f"{message}: {REPAIR.format(self.folder.root)}")

    def _stored_object(self, path: str) -> StoredObject:
        uri = storage.join(self.folder.root, path)
        try:
            return StoredObject(path, storage.stat(uri).size, storage.sha256(uri))
        except FileNotFoundError as error:
            raise self._damaged(f"{self.main_uri} names {path}, which is gone") from error
