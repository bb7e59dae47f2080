"""Folders of images: each image is a source of its own; the texts beside it and it are read a few images at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from transforms import storage
from transforms.errors import SourceChanged, amount
from transforms.inputs.fetch import FetchOptions, too_large
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches
from transforms.inputs.samples import MAX_TEXT_BYTES, fill_row
from transforms.inputs.uris import relative_to, stem
from transforms.ledger.types import INLINE, Source

READERS = 16  # at once, so that a store's latency is paid once for so many images


def read(
    sources: Iterable[Source], schema: InputSchema, options: FetchOptions, notices: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Canonical batches of single images, in the order of `sources`."""
    return batches(_rows(sources, schema, options, notices), schema)


def _rows(
    sources: Iterable[Source], schema: InputSchema, options: FetchOptions, notices: Counter[str]
) -> Iterator[Row]:
    waiting: deque[Future[tuple[Row, dict[str, bytes]]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="vqbeam-files")
    try:
        for source in sources:
            waiting.append(pool.submit(_load, source, schema, options))
            if len(waiting) >= READERS:
                yield fill_row(*waiting.popleft().result(), schema, notices)
        while waiting:
            yield fill_row(*waiting.popleft().result(), schema, notices)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(source: Source, schema: InputSchema, options: FetchOptions) -> tuple[Row, dict[str, bytes]]:
    """One image and the texts beside it. Raises `SourceChanged` and `ShardFailed`."""
    row = Row(stem(relative_to(source.uri, source.root)), source.uri)
    check_unchanged(source)
    if source.size > options.max_bytes:
        rejected = too_large(source.uri, source.size, options)
        row.error = (rejected.code, rejected.message)
    else:
        try:
            row.image = storage.read_bytes(source.uri)
        except FileNotFoundError as error:
            raise SourceChanged(f"{source.uri} is gone since the plan was made") from error
    texts: dict[str, bytes] = {}
    for extension in schema.sidecars:
        try:
            texts[extension] = storage.read_bytes(f"{stem(source.uri)}.{extension}", limit=MAX_TEXT_BYTES)
        except FileNotFoundError:
            continue
    return row, texts


def check_unchanged(source: Source) -> None:
    """Raise `SourceChanged` where a file is no longer the one that was planned."""
    if source.format == INLINE:
        return
    try:
        now = storage.stat(source.uri)
    except FileNotFoundError as error:
        raise SourceChanged(f"{source.uri} is gone since the plan was made") from error
    if (now.size, now.version) != (source.size, source.version):
        raise SourceChanged(
            f"{source.uri} changed since the plan was made (then {amount(source.size, 'bytes')}, version "
            f"{source.version}; now {amount(now.size, 'bytes')}, version {now.version}): start a new "
            "--output, or --overwrite"
        )
