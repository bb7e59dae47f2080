"""Files anywhere: listing, reading, and putting an object whole or not at all, on the local disk or any fsspec store.

Stores retry on their own (gcsfs and s3fs with back-off); an error that still comes here is a `StorageFailed`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import shutil
import stat as file_status
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from transforms import local_files
from transforms.errors import StorageFailed, UsageError
from transforms.local_files import PARTIAL_PREFIX as PARTIAL_PREFIX
from transforms.object_stores import ObjectStore, create, object_store, remove_below
from transforms.source_files import RangeReader, SourceFile
from transforms.source_files import faults as faults

HASH_CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
MD5 = re.compile(r'"?(?P<hex>[0-9a-f]{32})"?')  # as an ETag of S3, unless it was put in parts or with a key of its own
CHECKSUMS = ("crc32c", "md5Hash", "content_md5")  # as stores call those of a content
SAMPLE_PARTS, SAMPLE_BYTES = 16, 1 << 16  # so up to 1 MiB is read, and smaller files whole
STORE_BUFFER = 1 << 14  # of an object of a store; RangeReader has its own
S3_SCHEMES = ("s3", "s3a")
SPECIAL = {
    file_status.S_IFIFO: "a FIFO",
    file_status.S_IFSOCK: "a socket",
    file_status.S_IFCHR: "a device",
    file_status.S_IFBLK: "a device",
}


class SpecialFile(FileNotFoundError):
    """A device, FIFO or socket, which is never opened: it may have no end, hang, or do something."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`version` changes when the content does: generation or etag of an object store, mtime locally. `checksum` is the
    store's, of the content alone; empty if it has none. `md5` is of the content, in hex, empty if the store does not
    tell it; an ETag that looks like one may be none. `modified`: seconds since 1970, 0 if not told."""

    uri: str
    size: int
    version: str
    checksum: str = ""
    md5: str = field(default="", compare=False)
    modified: float = field(default=0.0, compare=False)


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `uri` and the path inside it.

    `::` is part of a name unless another file system follows it (`zip://a.jpg::gs://bucket/a.zip`). Raises `UsageError`
    if no installed package knows it, and `FileNotFoundError` and `StorageFailed` for a chain.
    """
    links = uri.split("::")[1:]
    chained = not uri.startswith("/") and any("://" in link or link[:1] == "/" or link.isalnum() for link in links)
    name, mark, rest = (uri, "", "") if chained else uri.partition("::")
    try:
        fs, path = cast("tuple[fsspec.AbstractFileSystem, str]", fsspec.core.url_to_fs(name))
    except (ValueError, ImportError, TypeError) as error:
        raise UsageError(f"{uri}: {_unknown(name.partition(':')[0], error)}") from error
    except FileNotFoundError:
        raise
    except Exception as error:  # an archive that is none, for one
        raise StorageFailed(f"cannot open {uri}: {error}") from error
    slash = "/" if mark and name.endswith("/") and not path.endswith("/") else ""
    return fs, path + slash + mark + rest


def file_system_class(scheme: str) -> type[fsspec.AbstractFileSystem]:
    """Raises `UsageError` if no installed package knows the scheme."""
    try:
        return cast("type[fsspec.AbstractFileSystem]", fsspec.get_filesystem_class(scheme))
    except (ValueError, ImportError) as error:
        raise UsageError(f"{scheme}: {_unknown(scheme, error)}") from error


def _unknown(scheme: str, error: Exception) -> str:
    """Why no file system is there for a scheme."""
    if scheme not in S3_SCHEMES or not isinstance(error, ImportError):
        return str(error)
    return f"{error.__cause__ or error}; for S3, install the extra: pip install 'vqbeam[s3]'"


def is_local(uri: str) -> bool:
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """A local path made absolute; a URL as listings spell it (`gs://` for `gcs://`), without a slash at its end."""
    fs, path = filesystem(uri)
    return os.path.abspath(path) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path)).rstrip("/")


def join(folder: str, *parts: str) -> str:
    return "/".join([folder.rstrip("/"), *parts])


def has_wildcard(pattern: str) -> bool:
    return any(char in pattern for char in "*?[")


def list_files(pattern: str) -> list[FileInfo]:
    """Files that match a glob (`*`, `?`, `[...]`, `**`), or all below a folder, or the file itself; sorted by name."""
    return sorted(_listed(pattern), key=lambda info: info.uri)


def iterate_files(pattern: str) -> Iterator[FileInfo]:
    """As `list_files`, for very many, and most often in order: Google Cloud Storage and S3 are read page by page.

    gcsfs holds some KB of each object until it has all, and stops at ten million without a word.
    """
    fs, path = filesystem(pattern)
    store = object_store(fs)
    yield from _paged(fs, store, path, pattern) if store else _listed(pattern)


def _listed(pattern: str) -> Iterator[FileInfo]:
    fs, path = filesystem(pattern)
    search = fs.glob if has_wildcard(path) else fs.find
    options = {"on_error": _raise_unless_gone} if isinstance(fs, LocalFileSystem) else {}
    with faults("list", pattern):
        fs.invalidate_cache()
        try:
            found = search(path, detail=True, **options)
        except FileNotFoundError:
            return
        fs.invalidate_cache()  # of what it holds of a listing beside the result
    names = sorted(found, reverse=True)
    while names:
        info = _followed(fs, found.pop(names.pop()))
        if info.get("type") != "directory":
            yield _file_info(fs, info)


def _paged(fs: fsspec.AbstractFileSystem, store: ObjectStore, path: str, pattern: str) -> Iterator[FileInfo]:
    """The objects of a store that match, in its order, which most often is that of their names."""
    matches = re.compile(glob_translate(path)).match if has_wildcard(path) else None
    bucket, _, key = (re.split(r"[*?\[]", path, maxsplit=1)[0] if matches else f"{path.rstrip('/')}/").partition("/")
    pages = store.pages(bucket, key)
    while True:
        with faults("list", pattern):
            try:
                page = next(pages, None)
            except FileNotFoundError:
                return
            if page is None:
                return
            named = [item for item in page if not item["name"].endswith("/")]  # these are made to look like folders
            infos = [_file_info(fs, item) for item in named if matches is None or matches(item["name"])]
        yield from infos


def _followed(fs: fsspec.AbstractFileSystem, info: dict[str, Any]) -> dict[str, Any]:
    """The target of a local link, which listings show and `stat` and reading follow."""
    if not (info.get("islink") and isinstance(fs, LocalFileSystem)):
        return info
    try:
        return cast("dict[str, Any]", fs.info(info["name"]))
    except FileNotFoundError:  # the link is broken: reading it will raise
        return info


def _raise_unless_gone(error: OSError) -> None:
    """Raise for a folder that cannot be read, which fsspec would list as empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def check_regular(path: str) -> None:
    """Raises `SpecialFile` for a local path that is a device, FIFO or socket, and any error of looking at it."""
    kind = special_kind(path)
    if kind:
        raise SpecialFile(f"{path} is {kind}, and no file")


def special_kind(path: str) -> str | None:
    """What a local path is if it is no file, such as "a FIFO"."""
    return SPECIAL.get(file_status.S_IFMT(os.stat(path).st_mode))


def stat(uri: str) -> FileInfo:
    """Size and version of a file as the store has them now. Raises `FileNotFoundError`."""
    fs, path = filesystem(uri)
    store = object_store(fs)
    with faults("stat", uri):
        if store and "/" in path.rstrip("/"):
            return _file_info(fs, store.look(path))
        fs.invalidate_cache()
        info = fs.info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError(f"{uri} is a folder")
        if info.get("type") == "other" and isinstance(fs, LocalFileSystem):
            check_regular(path)
        return _file_info(fs, info)


def exists(uri: str) -> bool:
    try:
        stat(uri)
    except FileNotFoundError:
        return False
    return True


def open_read(uri: str, buffer_size: int = 1 << 20, whole: bool = False) -> io.BufferedReader:
    """Open for streaming and seeking. Raises `FileNotFoundError` and `StorageFailed`, also from later reads.

    An object of a store is read by ranges that follow what is asked for (`RangeReader`); with `whole`, by large ones.
    """
    fs, path = filesystem(uri)
    store = object_store(fs)
    with faults("open", uri):
        if isinstance(fs, LocalFileSystem):
            check_regular(path)
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - handed to SourceFile, which closes it
        elif store:
            buffer_size = STORE_BUFFER
            file = cast(io.FileIO, RangeReader(partial(store.read, path), stat(uri).size, whole))
        else:
            file = fs.open(path, "rb", block_size=max(buffer_size, 1 << 20))
    return io.BufferedReader(SourceFile(cast(BinaryIO, file), uri), buffer_size)


def open_unpacked(uri: str, buffer_size: int = 1 << 20, whole: bool = False) -> BinaryIO:
    """As `open_read`, unpacked if the content, not the name, is gzipped: then reading raises gzip's own errors, too."""
    file = open_read(uri, buffer_size, whole)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP_MAGIC else file)


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The whole content, or its first `limit` bytes. Raises `FileNotFoundError` and `StorageFailed`."""
    fs, path = filesystem(uri)
    with faults("read", uri):
        if isinstance(fs, LocalFileSystem):
            check_regular(path)
        store = object_store(fs)
        return store.read(path, end=limit) if store else cast(bytes, fs.cat_file(path, end=limit))


def put_new(source: bytes | Path, uri: str, *, sync: bool = True) -> bool:
    """Create `uri`, whole, from bytes or a local file; False if it exists already.

    Locally by a hard link, so that a file is never seen half written; elsewhere by the store's create-only put. A local
    file is durable, and so is its name unless `sync` is False: then `sync_folder` makes those of a whole folder so.
    """
    fs, path = filesystem(uri)
    with faults("write", uri, ()):
        if isinstance(fs, LocalFileSystem):
            created = local_files.create(source, Path(path))
            if created and sync:
                local_files.sync_folder(Path(path).parent)
            return created
        return create(fs, source, path)


def put_bytes(data: bytes, uri: str) -> None:
    """Create or replace `uri`, whole."""
    fs, path = filesystem(uri)
    with faults("write", uri, ()):
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(path, data)
            return
        local_files.replace(data, Path(path))


def replace_with(source: str, uri: str) -> None:
    """Create or replace `uri` by a copy of `source`, of the same store, whole. Locally both then share their bytes."""
    fs, path = filesystem(uri)
    origin = filesystem(source)[1]
    with faults("write", uri, (FileNotFoundError,)):
        if not isinstance(fs, LocalFileSystem):
            fs.cp_file(origin, path)
            return
        local_files.replace(Path(origin), Path(path))


def delete_partials(prefix: str) -> None:
    """Remove the partial files of killed writers, for names that begin with `prefix`. Stores have none."""
    fs, path = filesystem(prefix)
    if not isinstance(fs, LocalFileSystem):
        return
    folder, name = os.path.split(path)
    with suppress(FileNotFoundError), faults("tidy", folder):
        local_files.delete_partials(Path(folder), name)


def delete_leftovers(uri: str) -> None:
    """Remove the partial files of killed writers that lie in a folder itself; those of live ones stay."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with suppress(FileNotFoundError, NotADirectoryError), faults("tidy", uri):
            local_files.delete_leftovers(Path(path))


def delete(uri: str) -> None:
    """Remove a file, if it exists."""
    fs, path = filesystem(uri)
    with suppress(FileNotFoundError), faults("delete", uri):
        fs.rm_file(path)


def delete_folder(uri: str) -> None:
    """Remove everything below a folder, if it exists."""
    fs, path = filesystem(uri)
    with suppress(FileNotFoundError), faults("delete", uri):
        remove_below(fs, path)


def delete_empty_folders(uri: str, top: str) -> None:
    """Remove an empty local folder, and those above it up to `top` that are empty then. Stores have no folders."""
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        return
    end, folder = filesystem(top)[1], path
    with suppress(OSError):  # not empty, or gone
        while len(folder) > len(end):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def sha256(uri: str) -> str:
    """Hex digest of the content, streamed."""
    digest = hashlib.sha256()
    with open_read(uri, whole=True) as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sample(uri: str) -> str:
    """Hex digest of a file's size and of parts that are spread evenly over it; it can miss a few changed bytes."""
    size = stat(uri).size
    digest = hashlib.sha256(str(size).encode())
    with open_read(uri, SAMPLE_BYTES) as file:
        for start in range(0, size, max(SAMPLE_BYTES, -(-size // SAMPLE_PARTS))):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def free_bytes(folder: str | Path) -> int:
    """Free space of the disk that holds a local folder."""
    return shutil.disk_usage(folder).free


def _file_info(fs: fsspec.AbstractFileSystem, info: Mapping[str, Any]) -> FileInfo:
    local = isinstance(fs, LocalFileSystem)
    uri = info["name"] if local else fs.unstrip_protocol(info["name"])
    names = ("mtime",) if local else ("generation", "ETag", "etag", "LastModified", "mtime", "updated", "created")
    if not local and isinstance(info.get("created"), float):  # of memory:// in listings, elsewhere it is a date
        info = {**info, "created": datetime.fromtimestamp(info["created"], timezone.utc)}
    version = next((str(info[name]) for name in names if info.get(name)), "")
    checksum = "" if local else next((str(info[name]) for name in CHECKSUMS if info.get(name)), "")
    return FileInfo(uri, int(info.get("size") or 0), version, checksum, "" if local else _md5(info), _modified(info))


def _modified(info: Mapping[str, Any]) -> float:
    found = next((info[name] for name in ("mtime", "LastModified", "updated", "created") if info.get(name)), 0.0)
    try:
        found = datetime.fromisoformat(found.replace("Z", "+00:00")) if isinstance(found, str) else found
        return found.timestamp() if isinstance(found, datetime) else float(found)
    except (TypeError, ValueError):
        return 0.0


def _md5(info: Mapping[str, Any]) -> str:
    if info.get("md5Hash"):  # of Google Cloud Storage, which has none for composed objects
        return base64.b64decode(info["md5Hash"]).hex()
    found = MD5.fullmatch(str(info.get("ETag", "")))
    return found["hex"] if found else ""


def sync_folder(uri: str) -> None:
    """Make the names in a local folder durable, if it exists; stores do so by themselves."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with suppress(FileNotFoundError), faults("sync", uri):
            local_files.sync_folder(Path(path))
