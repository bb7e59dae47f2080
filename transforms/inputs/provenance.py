"""Where sources come from: the provenance in vqbeam's Parquet files, and whether a source is the planned one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import IMAGE_PATH
from transforms.errors import SourceChanged, WrongCodebook, amount
from transforms.inputs.uris import folder_of
from transforms.ledger.folder import FILES
from transforms.ledger.tables import PROVENANCE_KEY
from transforms.ledger.types import INLINE, Slice, Source

IMAGE_FILES = "files"  # the format of sources that are one image each
READERS = 16  # sources looked at at once
OTHER_TIME = "a file has another time than when it was planned, and the same size: taken as unchanged"
TAKE_IT = "restore it, or use retry_rejected to take it as it is now"
START_OVER = "restore it, or start over in another output folder"


def _provenance(columns: pa.Schema) -> Mapping[str, Any] | None:
    stored = (columns.metadata or {}).get(PROVENANCE_KEY.encode())
    provenance: Mapping[str, Any] | None = json.loads(stored) if stored else None
    return provenance


def token_provenance(uri: str) -> Mapping[str, Any] | None:
    """The provenance of a file; None for tokens that vqbeam did not write. Raises `FileNotFoundError`."""
    with storage.open_read(uri) as file:
        try:
            return _provenance(pq.read_schema(file))
        except pa.ArrowInvalid:
            return None  # no Parquet at all: reading it makes that a rejected row


def image_root(source: Source, columns: pa.Schema, image: str | None) -> Source:
    """The table, moved to the folder that the paths in its column `image` are relative to.

    That is its own folder, except for images that vqbeam wrote: their paths are relative to its output folder, and the
    tables are in `data/` there.
    """
    if image != IMAGE_PATH or (_provenance(columns) or {}).get("image_layout") != FILES:
        return source
    output = folder_of(folder_of(source.uri))
    name = source.uri.rpartition("/")[2]
    return replace(source, uri=f"{output}/{name}", root=min(source.root, output, key=len))


def mismatch(uri: str, provenance: Mapping[str, Any] | None, codebook_id: str) -> str | None:
    """Why codes from `uri` are not the model's; None if they are, or if nothing is known of them."""
    if provenance is None or provenance.get("codebook_id") in (None, codebook_id):
        return None
    return (
        f"{uri} was encoded with the model {provenance.get('model')!r} (codebook {provenance['codebook_id'][:12]}), "
        f"not with this one (codebook {codebook_id[:12]}): the codes would look valid and decode to nonsense. "
        "Give the model that made them, or allow_model_mismatch if you know better"
    )


def check_codebook(source: Source, expected: str | None) -> None:
    """Raises `WrongCodebook` if tokens of `source` come from another codebook than `expected`; None is any."""
    if expected is None:
        return
    check_unchanged(source)
    problem = mismatch(source.uri, token_provenance(source.uri), expected)
    if problem:
        raise WrongCodebook(problem)


def check_unchanged(source: Source) -> bool:
    """Whether only the time of a source differs from the plan. Raises `SourceChanged` if its content does."""
    return _check(source, _now(source))


def _check(source: Source, now: storage.FileInfo) -> bool:
    if (now.size, now.version) == (source.size, source.version):
        return False
    if not same_content(source, now):
        raise SourceChanged(f"{_difference(source, now)}: {TAKE_IT}")
    return not now.checksum


@contextmanager
def unchanged(source: Source, notices: Counter[str]) -> Iterator[None]:
    """Raises `SourceChanged` if a source is not the planned one, or changes while the context is open."""
    before = _now(source)
    if _check(source, before):
        notices[OTHER_TIME] += 1
    yield
    if _now(source) != before:
        raise SourceChanged(f"{source.uri} changed while it was read: {TAKE_IT}")


def as_they_are(slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], tuple[Source, ...]]:
    """The slices with changed sources as they are now, and these sources.

    Raises `SourceChanged` for one that is gone, or that is cut into several slices: other shards hold rows of what it
    was.
    """
    with ThreadPoolExecutor(READERS) as pool:
        now = tuple(pool.map(_as_it_is, slices))
    return now, tuple(dict.fromkeys(new.source for old, new in zip(slices, now, strict=True) if new is not old))


def _as_it_is(part: Slice) -> Slice:
    source = part.source
    if source.format == INLINE:
        return part
    now = _now(source)
    if (now.size, now.version) == (source.size, source.version) or same_content(source, now):
        return part
    if not part.whole:
        raise SourceChanged(f"{_difference(source, now)}, and is cut into several shards: {START_OVER}")
    source = replace(source, size=now.size, version=now.version, checksum=now.checksum, rows=None)
    return replace(part, source=source, stop=None)


def _now(source: Source) -> storage.FileInfo:
    try:
        return storage.stat(source.uri)
    except FileNotFoundError as error:
        raise SourceChanged(f"{source.uri} is gone since the plan was made: restore it") from error


def same_content(source: Source, now: storage.FileInfo) -> bool:
    """Whether a source of another version than planned has the planned content, as far as the plan can tell.

    Local images have no checksum in it: one of equal size is taken as it is. It is whole in one shard, so that nothing
    is mixed, and the notice says so.
    """
    if now.size != source.size:
        return False
    if now.checksum or not storage.is_local(source.uri):
        return bool(source.checksum) and now.checksum == source.checksum
    if not source.checksum:
        return source.format == IMAGE_FILES
    return storage.sample(source.uri) == source.checksum


def _difference(source: Source, now: storage.FileInfo) -> str:
    return (
        f"{source.uri} changed since the plan was made (then {amount(source.size, 'bytes')}, version "
        f"{source.version}; now {amount(now.size, 'bytes')}, version {now.version})"
    )
