"""The layout with images and their rows, as JSON, in WebDataset tars."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from transforms import storage
from transforms.batch import CAPTION, ENCODING, first_caption, to_rows
from transforms.ledger.commit import MainObject
from transforms.ledger.seal import HashedFile, sealed
from transforms.ledger.types import ShardCounts, StoredObject, pack_codes
from transforms.outputs.image_files import Compressor
from transforms.outputs.layout import EXTENSIONS, Images, Layout, Row, SinkTarget, StoredImage, Texts, TokenLayout
from transforms.outputs.table import output_rows

COUNTS_MEMBER = "__vqbeam__"  # last member of a tar; WebDataset readers skip names like this
JSON = ".json"
IMAGES = tuple(f".{extension}" for extension in EXTENSIONS.values())
BYTES_BEFORE = 1 << 20  # before a place that are read, too: the first images of the same row of the input


class TarSink:
    """Writes the image and the JSON of each row; the counts are the last member."""

    def __init__(self, target: SinkTarget, image_format: str, texts: Texts | None) -> None:
        self.path = target.path
        self.images: list[StoredObject] = []
        self._schema = target.schema
        self._compress = Compressor(target.compress_pool, image_format, texts)
        self._target = target
        self._file = open(target.path, "wb")  # noqa: SIM115 - closed by finish or abort
        self._hashed = HashedFile(self._file)
        out = cast(IO[bytes], self._hashed)
        self._tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - likewise

    def write(self, batch: pa.RecordBatch) -> None:
        rows = output_rows(batch, self._schema).to_pylist()
        for (name, data), row in zip(self._compress(batch), rows, strict=True):
            stem = name.rsplit(".", 1)[0]
            self._add(name, data)
            self._add(f"{stem}{JSON}", as_json(row))

    def finish(self, counts: ShardCounts) -> None:
        self._add(COUNTS_MEMBER, sealed(counts, self._target.job, self._target.shard, self._hashed).encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # time, owner and mode stay at their fixed defaults
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


class TokenTarSink(TarSink):
    """Writes the codes, the caption and the JSON of each row, named by a number: the dots of a key would cut it."""

    def __init__(self, target: SinkTarget, codebook_size: int) -> None:
        super().__init__(target, "png", None)
        self._shard = target.shard
        self._rows = 0
        self._used = np.zeros(codebook_size, bool)

    def write(self, batch: pa.RecordBatch) -> None:
        codes = to_rows(batch.column(ENCODING))
        self._used[codes.reshape(-1)] = True
        others = output_rows(batch, self._schema).drop_columns([ENCODING]).to_pylist()
        for row, other in zip(codes, others, strict=True):
            stem = f"{self._shard}_{self._rows:08d}"
            data = io.BytesIO()
            np.save(data, row)
            self._add(f"{stem}.npy", data.getvalue())
            self._add(f"{stem}.txt", first_caption(other.pop(CAPTION)).encode("utf-8", "surrogatepass"))
            self._add(f"{stem}{JSON}", as_json(other))
            self._rows += 1

    def finish(self, counts: ShardCounts) -> None:
        counts.codes_used = pack_codes(self._used)
        super().finish(counts)


def as_json(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, default=_as_text).encode()


def _as_text(value: object) -> str:
    """A value that JSON has no type for (time, decimal, bytes) as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _read_tar(file: IO[bytes]) -> tuple[str, list[str]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        member = tar.extractfile(COUNTS_MEMBER)
        assert member is not None, "a regular member has content"
        return member.read().decode(), []


def stream_rows(uri: str) -> Iterator[Row]:
    """All rows of a tar, which is read from its beginning to its end."""
    with storage.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(JSON) else None
            if content is not None:
                yield json.loads(content.read())


@contextmanager
def _open_images(uri: str, output: str, columns: Collection[str]) -> Iterator[Images]:
    size = storage.stat(uri).size
    with storage.open_read(uri) as file:

        def images(share: float) -> Iterator[StoredImage]:
            start = _first_image(file, max(0, int(share * size) - BYTES_BEFORE))
            if start is None:
                return
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                image = None
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None or member.name == COUNTS_MEMBER:
                        return
                    if image is None or not member.name.endswith(JSON):
                        image = member
                        continue
                    end = member.offset_data + member.size
                    yield StoredImage(image.offset, end / size, json.loads(content.read()), partial(read, image))
                    image = None

        def read(member: tarfile.TarInfo) -> tuple[str, bytes]:
            file.seek(member.offset_data)
            return member.name, file.read(member.size)

        yield images


def _first_image(file: IO[bytes], start: int) -> int | None:
    """The byte where the header of the first image at or behind `start` begins; None if there is none."""
    start = -(-start // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    file.seek(start)
    while block := file.read(tarfile.BLOCKSIZE):
        if block[257:262] == b"ustar":
            try:
                member = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
            except tarfile.HeaderError:  # the checksum does not fit: a part of an image
                member = None
            if member and member.isreg() and member.name.endswith(IMAGES):
                return start
        start += len(block)
    return None


TARS = MainObject("tars", "tar", _read_tar)
TOKEN_LAYOUT = TokenLayout(TARS, TokenTarSink)
LAYOUT = Layout(TARS, [], TarSink, _open_images)
