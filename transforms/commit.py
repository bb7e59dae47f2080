"""The shard transaction: one object of a shard, its table or tar, is put create-only and decides; the mark comes last.

Whoever loses adopts what the winner stored. So a shard may be run twice, at once, or be cut off anywhere, and one
consistent set of objects remains.
"""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import EnvironmentFault
from transforms.layout import Layout
from transforms.reports import ShardCounts, ShardReport, StoredObject, stats_json
from transforms.tables import COUNTS_KEY

TAR_COUNTS_MEMBER = "__vqbeam__"  # last member of a tar; names like this are skipped by WebDataset readers
IMAGE_PATH = "image_path"  # column of a table whose pictures are files of their own


@dataclass(frozen=True)
class ShardTransaction:
    """The objects of one shard below an output folder. `main` is the URI of the table or tar that decides."""

    layout: Layout
    shard: str
    main: str
    version: str  # of vqbeam, for the mark

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
        errors_uri = ""
        made_errors = False
        if errors is not None:
            errors_uri = self.layout.errors(self.shard, storage.sha256(str(errors)))
            made_errors = storage.put_new(errors, errors_uri)
            objects.append(self._object(errors, errors_uri))
        main = self._object(local, self.main)
        if storage.put_new(local, self.main):
            return self._complete(report, [main, *objects])
        counts, stored = self._stored()
        kept = {item.path for item in stored}
        if made_errors and self.layout.relative(errors_uri) not in kept:
            storage.delete(errors_uri)
        if pictures:
            self._delete_unlisted_pictures(kept)
        adopted = ShardReport(report.shard, "adopted", counts, report.seconds, report.timings)
        return self._complete(adopted, stored)

    def errors_name(self, errors: Path | None) -> str:
        """The path below the output folder that the rejected rows will have."""
        if errors is None:
            return ""
        return self.layout.relative(self.layout.errors(self.shard, storage.sha256(str(errors))))

    def _complete(self, report: ShardReport, objects: list[StoredObject]) -> ShardReport:
        storage.put_bytes_new(stats_json(report, objects, self.version), self.layout.stats(self.shard))
        return report

    def _object(self, local: Path, uri: str) -> StoredObject:
        return StoredObject(self.layout.relative(uri), os.path.getsize(local), storage.sha256(str(local)))

    def _stored(self) -> tuple[ShardCounts, list[StoredObject]]:
        """Counts and objects as the store has them."""
        counts, pictures = read_main(self.main)
        paths = [self.layout.relative(self.main), *pictures]
        if counts.errors_file:
            paths.append(counts.errors_file)
        objects = []
        for path in paths:
            uri = storage.join(self.layout.root, path)
            try:
                objects.append(StoredObject(path, storage.stat(uri).size, storage.sha256(uri)))
            except FileNotFoundError as error:
                raise EnvironmentFault(f"{self.main} names {path}, which is gone; --overwrite starts over") from error
        return counts, objects

    def _delete_unlisted_pictures(self, kept: set[str]) -> None:
        for info in storage.list_files(self.layout.images(self.shard)):
            if self.layout.relative(info.uri) not in kept:
                storage.delete(info.uri)


def read_main(uri: str) -> tuple[ShardCounts, list[str]]:
    """The counts that a stored table or tar carries, and the paths of the picture files that it names."""
    with storage.open_read(uri) as file:
        if uri.endswith(".tar"):
            with tarfile.open(fileobj=file, mode="r:") as tar:
                member = tar.extractfile(TAR_COUNTS_MEMBER)
                if member is None:
                    raise EnvironmentFault(f"{uri} was not written by vqbeam: it has no {TAR_COUNTS_MEMBER}")
                return ShardCounts.from_json(member.read()), []
        parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        metadata = parquet.metadata.metadata or {}
        if COUNTS_KEY.encode() not in metadata:
            raise EnvironmentFault(f"{uri} was not written by vqbeam: it has no {COUNTS_KEY} in its metadata")
        pictures: list[str] = []
        if IMAGE_PATH in parquet.schema_arrow.names:
            for batch in parquet.iter_batches(columns=[IMAGE_PATH]):
                pictures.extend(batch.column(0).to_pylist())
        return ShardCounts.from_json(metadata[COUNTS_KEY.encode()]), pictures


def read_mark(uri: str) -> tuple[ShardCounts, list[StoredObject], float]:
    """Counts, objects and seconds of a mark. Raises `FileNotFoundError`."""
    values = json.loads(storage.read_bytes(uri))
    objects = [StoredObject(**item) for item in values["objects"]]
    return ShardCounts.from_json(json.dumps(values)), objects, float(values["seconds"])
