"""The shard transaction: one object of a shard, its table or tar, is put create-only and decides; the mark comes last.

Whoever loses adopts what the winner stored. So a shard may be run twice, at once, or be cut off anywhere, and one
consistent set of objects remains.
"""

from __future__ import annotations

import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import IMAGE_PATH
from transforms.errors import OutputDamaged
from transforms.ledger.folder import Layout
from transforms.ledger.reports import ShardCounts, ShardReport, StoredObject, stats_json
from transforms.ledger.tables import COUNTS_KEY

TAR_COUNTS_MEMBER = "__vqbeam__"  # last member of a tar; names like this are skipped by WebDataset readers
READERS = 16  # objects of an adopted shard read at once


@dataclass(frozen=True)
class ShardTransaction:
    """The objects of one shard below an output folder. `main` is the URI of the table or tar that decides,
    `pictures` the folder of its picture files, None where it has none."""

    layout: Layout
    shard: str
    main: str
    version: str  # of vqbeam, for the mark
    pictures: str | None = None

    def mark(self) -> ShardCounts | None:
        """The counts in the mark of this shard; None while it is not done."""
        try:
            return ShardCounts.from_json(storage.read_bytes(self.layout.stats(self.shard)))
        except FileNotFoundError:
            return None

    def adopt(self) -> ShardReport | None:
        """Complete the mark from an object that is already there; None where there is none."""
        if not storage.exists(self.main):
            return None
        counts, objects = self._stored()
        return self._complete(ShardReport(int(self.shard), "adopted", counts), objects)

    def commit(
        self, report: ShardReport, local: Path, errors: Path | None, pictures: list[StoredObject]
    ) -> ShardReport:
        """Put the rejected rows, then the table or tar, then the mark. `pictures` are stored already.

        Returns the report of what is stored now: this attempt's, or the winner's with status "adopted".
        """
        objects = list(pictures)
        if errors is not None:
            uri = storage.join(self.layout.root, self.errors_name(errors))
            storage.put_new(errors, uri)
            objects.append(self._object(errors, uri))
        main = self._object(local, self.main)
        if storage.put_new(local, self.main):
            return self._complete(report, [main, *objects])
        counts, stored = self._stored()
        return self._complete(ShardReport(report.shard, "adopted", counts, report.seconds, report.timings), stored)

    def errors_name(self, errors: Path | None) -> str:
        """The path below the output folder that the rejected rows will have."""
        if errors is None:
            return ""
        return self.layout.relative(self.layout.errors(self.shard, storage.sha256(str(errors))))

    def _complete(self, report: ShardReport, objects: list[StoredObject]) -> ShardReport:
        self._sweep({item.path for item in objects})
        mark = self.layout.stats(self.shard)
        storage.put_bytes_new(stats_json(report, objects, self.version), mark)
        storage.delete_partials(mark)
        return report

    def _sweep(self, kept: set[str]) -> None:
        """Delete what other attempts at this shard left behind. They have lost: `main` is there and names `kept`."""
        errors = self.layout.errors_prefix(self.shard)
        found = storage.list_files(f"{errors}*")
        if self.pictures is not None:
            found += storage.list_files(self.pictures)
        for info in found:
            if self.layout.relative(info.uri) not in kept:
                storage.delete(info.uri)
        storage.delete_partials(self.main)
        storage.delete_partials(errors)

    def _object(self, local: Path, uri: str) -> StoredObject:
        return StoredObject(self.layout.relative(uri), os.path.getsize(local), storage.sha256(str(local)))

    def _stored(self) -> tuple[ShardCounts, list[StoredObject]]:
        """Counts and objects as the store has them."""
        counts, pictures = read_main(self.main)
        paths = [self.layout.relative(self.main), *(pictures if self.pictures is not None else [])]
        if counts.errors_file:
            paths.append(counts.errors_file)
        with ThreadPoolExecutor(READERS) as pool:
            return counts, list(pool.map(self._stored_object, paths))

    def _stored_object(self, path: str) -> StoredObject:
        uri = storage.join(self.layout.root, path)
        try:
            return StoredObject(path, storage.stat(uri).size, storage.sha256(uri))
        except FileNotFoundError as error:
            raise OutputDamaged(f"{self.main} names {path}, which is gone; --overwrite starts over") from error


def read_main(uri: str) -> tuple[ShardCounts, list[str]]:
    """The counts that a stored table or tar carries, and what a column of paths of picture files holds."""
    with storage.open_read(uri) as file:
        try:
            return _read_tar(file) if uri.endswith(".tar") else _read_table(file)
        except (pa.ArrowInvalid, tarfile.TarError, KeyError) as error:
            raise OutputDamaged(f"{uri} was not written by vqbeam, or is damaged: {error}") from error


def _read_tar(file: IO[bytes]) -> tuple[ShardCounts, list[str]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        member = tar.extractfile(TAR_COUNTS_MEMBER)
        assert member is not None, "a regular member has content"
        return ShardCounts.from_json(member.read()), []


def _read_table(file: IO[bytes]) -> tuple[ShardCounts, list[str]]:
    parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    pictures: list[str] = []
    if IMAGE_PATH in parquet.schema_arrow.names:
        for batch in parquet.iter_batches(columns=[IMAGE_PATH]):
            pictures.extend(batch.column(0).to_pylist())
    return ShardCounts.from_json((parquet.metadata.metadata or {})[COUNTS_KEY.encode()]), pictures


def read_mark(uri: str) -> tuple[ShardCounts, list[StoredObject], float]:
    """Counts, objects and seconds of a mark. Raises `FileNotFoundError`."""
    values = json.loads(storage.read_bytes(uri))
    objects = [StoredObject(**item) for item in values["objects"]]
    return ShardCounts.from_json(json.dumps(values)), objects, float(values["seconds"])
