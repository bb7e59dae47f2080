"""The layout with a file for each image, put before the table that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import replace

import pyarrow as pa

from transforms import storage
from transforms.batch import IMAGE_PATH
from transforms.ledger.folder import IMAGES
from transforms.ledger.types import StoredObject
from transforms.outputs.image_files import Compressor
from transforms.outputs.layout import Images, Layout, SinkTarget, Texts
from transforms.outputs.table import TABLE, TableSink, open_images


class ImageFileSink(TableSink):
    """Puts image files, then the table. An image that another attempt has put already is never replaced, so whichever
    table wins describes the files that are there."""

    def __init__(self, target: SinkTarget, image_format: str, texts: Texts | None) -> None:
        super().__init__(target)
        self._compress = Compressor(target.compress_pool, image_format, texts)
        self._uploads = target.upload_pool
        self._output = target.folder
        self._folder = target.folder.images(target.shard)

    def write(self, batch: pa.RecordBatch) -> None:
        stored = list(self._uploads.map(self._put, self._compress(batch)))
        self.images.extend(stored)
        paths = pa.array([item.path for item in stored], pa.string())
        super().write(batch.append_column(IMAGE_PATH, paths))

    def _put(self, image: tuple[str, bytes]) -> StoredObject:
        name, data = image
        uri = storage.join(self._folder, name)
        while not storage.put_new(data, uri, sync=False):
            try:
                data = storage.read_bytes(uri)
                break
            except FileNotFoundError:  # swept away meanwhile by an attempt that has won
                continue
        return StoredObject(self._output.relative(uri), len(data), hashlib.sha256(data).hexdigest())


def _open_images(uri: str, output: str, columns: Collection[str]) -> AbstractContextManager[Images]:
    def read(path: str) -> tuple[str, bytes]:
        return path.rpartition("/")[2], storage.read_bytes(storage.join(output, path))

    return open_images(uri, columns, IMAGE_PATH, read)


LAYOUT = Layout(replace(TABLE, files=IMAGES), [(IMAGE_PATH, pa.string())], ImageFileSink, _open_images)
