"""Layouts of written images, and of exported tokens. A layout is a file beside this one, which defines `LAYOUT` or
`TOKEN_LAYOUT`, and a line in `LAYOUTS` or `TOKEN_LAYOUTS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa

from transforms.ledger.commit import MainObject
from transforms.ledger.folder import FILES, OutputFolder
from transforms.ledger.types import ShardCounts, StoredObject

# A layout's name, the option `image_layout`: the module here that defines it, and its words in help texts.
LAYOUTS: Mapping[str, tuple[str, str]] = {
    FILES: ("files", "a file each"),
    "webdataset": ("tar", "tars of images and JSON"),
    "parquet": ("table", "inside the table"),
}
# Likewise of exported tokens, the option `layout`.
TOKEN_LAYOUTS: Mapping[str, tuple[str, str]] = {
    "parquet": ("table", "tables"),
    "webdataset": ("tar", "tars of npy, txt and json"),
    "npy": ("npy", "a file of codes for each row and captions as JSON lines, as LlamaGen lays them out"),
    "mds": ("mds", "shards of MosaicML streaming"),
    "memmap": ("memmap", "flat files of codes, and tables of all else"),
}
EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}  # of the image formats that are written

Columns = list[tuple[str, pa.DataType]]
Texts = Callable[[pa.RecordBatch], list[Mapping[str, str]]]  # the text chunks of each row's PNG
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SinkTarget:
    """The output of one shard: the local file `path` with rows of `schema`, and image files in `folder`. `job` is for
    the seal, which plans of earlier versions lack."""

    path: Path
    schema: pa.Schema
    compress_pool: Executor
    upload_pool: Executor
    folder: OutputFolder
    shard: str
    job: str = ""


class Sink(Protocol):
    """Takes the batches of one shard in order. `finish` completes the local main object, with the counts in it;
    `images` are the image files stored by then."""

    path: Path
    images: list[StoredObject]

    def write(self, batch: pa.RecordBatch) -> None: ...

    def finish(self, counts: ShardCounts) -> None: ...

    def abort(self) -> None: ...


@dataclass(frozen=True)
class StoredImage:
    """An image of a stored main object, and its row. `number` grows from image to image; `end` is the share of the
    object that ends with the image. `read` returns the name and the content of the file, while the object is open."""

    number: int
    end: float
    row: Row
    read: Callable[[], tuple[str, bytes]]


# Images in order, from the one at a share of the object on, or from a few before it.
Images = Callable[[float], Iterator[StoredImage]]


@dataclass(frozen=True)
class Layout:
    """How a shard's rows and images are stored.

    `columns` are those that the sink adds to a row for its image. `sink` takes the target, the image format and the
    texts of PNGs; it is given batches with `pixels`, `key`, `row` and, if a row has several images, `sample`.
    `open_images` opens a stored main object; it takes the URI of the object, the output folder and the columns of the
    rows to read, and may read others.
    """

    main: MainObject
    columns: Columns
    sink: Callable[[SinkTarget, str, Texts | None], Sink]
    open_images: Callable[[str, str, Collection[str]], AbstractContextManager[Images]]

    @property
    def images_folder(self) -> str:
        """The folder below the output folder in which to look for images."""
        return self.main.files or self.main.folder


class Index(Protocol):
    """The `INDEX` of an export, for its readers: JSON about shards, each the path, the bytes and the rows of the file
    that holds its codes. The codes of a row are `codes_per_image` ids of `codebook_size`."""

    def __call__(
        self, shards: Sequence[tuple[str, int, int]], codes_per_image: int, codebook_size: int
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TokenLayout:
    """How a shard of exported tokens is stored.

    `sink` takes the target and the size of the codebook. `columns` take the place of `encoding` in tables, if the codes
    are elsewhere. `index` makes what is written when all shards are there, None if nothing is.
    """

    main: MainObject
    sink: Callable[[SinkTarget, int], Sink]
    columns: Columns | None = None
    index: Index | None = None


@dataclass(frozen=True)
class ImageOutput:
    """How a command writes images: an `image_format` in `EXTENSIONS`, an `image_layout` in `LAYOUTS`."""

    image_format: str = "png"
    image_layout: str = FILES

    @property
    def layout(self) -> Layout:
        return find_layout(self.image_layout)

    @property
    def absent_columns(self) -> set[str]:
        """The columns of other layouts, which this one lacks."""
        return {*image_columns()} - {name for name, _ in self.layout.columns}

    def sink(self, target: SinkTarget, texts: Texts | None = None) -> Sink:
        return self.layout.sink(target, self.image_format, texts)


def find_layout(name: str) -> Layout:
    """The layout of a name in `LAYOUTS`."""
    return cast(Layout, importlib.import_module(f".{LAYOUTS[name][0]}", __package__).LAYOUT)


def find_token_layout(name: str) -> TokenLayout:
    """The layout of a name in `TOKEN_LAYOUTS`."""
    return cast(TokenLayout, importlib.import_module(f".{TOKEN_LAYOUTS[name][0]}", __package__).TOKEN_LAYOUT)


def main_objects() -> list[MainObject]:
    """The main objects of all layouts."""
    return [*(find_layout(name).main for name in LAYOUTS), *(find_token_layout(name).main for name in TOKEN_LAYOUTS)]


def main_folders() -> tuple[str, ...]:
    """The folders of main objects, of all layouts."""
    return tuple(dict.fromkeys(main.folder for main in main_objects()))


def image_columns() -> tuple[str, ...]:
    """The names of the columns that layouts add, of all layouts."""
    return tuple(dict.fromkeys(column for name in LAYOUTS for column, _ in find_layout(name).columns))
