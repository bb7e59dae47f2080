"""Files anywhere: listing, reading, and putting an object whole or not at all, on the local disk or any fsspec store.

Stores retry on their own (gcsfs and s3fs with back-off); what still fails here is a fault of the environment.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from transforms.errors import EnvironmentFault

PARTIAL_PREFIX = ".vqbeam-partial-"  # hidden: readers of a data folder skip names with a leading dot
HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """`version` changes when the content does: generation or etag of an object store, mtime locally."""

    uri: str
    size: int
    version: str


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `uri` and the path inside it."""
    try:
        return cast("tuple[fsspec.AbstractFileSystem, str]", fsspec.core.url_to_fs(uri))
    except (ValueError, ImportError) as error:
        raise EnvironmentFault(f"{uri}: {error}") from error


def is_local(uri: str) -> bool:
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """A local path made absolute; a URL as it is, without a slash at its end."""
    fs, path = filesystem(uri)
    return os.path.abspath(path) if isinstance(fs, LocalFileSystem) else uri.rstrip("/")


def join(folder: str, *parts: str) -> str:
    return "/".join([folder.rstrip("/"), *parts])


@contextmanager
def faults(action: str, uri: str) -> Iterator[None]:
    """Turn what a store raises into `EnvironmentFault`; "not there" and "is there already" stay as they are."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, EnvironmentFault):
        raise
    except Exception as error:  # stores raise their own types: HttpError, ClientError, RefreshError, ...
        detail = f"{type(error).__name__}: {error}".strip(": ")
        raise EnvironmentFault(f"cannot {action} {uri}: {detail}") from error


def list_files(pattern: str) -> list[FileInfo]:
    """Files that match a glob (`*`, `?`, `[...]`, `**`), or all below a folder, or the file itself; sorted by name."""
    fs, path = filesystem(pattern)
    with faults("list", pattern):
        try:
            is_glob = any(char in path for char in "*?[")
            found = fs.glob(path, detail=True) if is_glob else fs.find(path, detail=True)
        except FileNotFoundError:
            return []
    infos = [_file_info(fs, info) for info in found.values() if info.get("type") != "directory"]
    return sorted(infos, key=lambda info: info.uri)


def stat(uri: str) -> FileInfo:
    """Size and version as the store has them now. Raises `FileNotFoundError`."""
    fs, path = filesystem(uri)
    with faults("stat", uri):
        fs.invalidate_cache()
        info = fs.info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError(f"{uri} is a folder")
        return _file_info(fs, info)


def exists(uri: str) -> bool:
    try:
        stat(uri)
    except FileNotFoundError:
        return False
    return True


class SourceFile(io.RawIOBase):
    """A readable, seekable file whose failures are `EnvironmentFault`, so that a parser's own are the data's."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with faults("read", self._uri):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with faults("read", self._uri):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_read(uri: str, buffer_size: int = 1 << 20) -> io.BufferedReader:
    """Open for streaming and seeking. Raises `FileNotFoundError` and `EnvironmentFault`, also from later reads."""
    fs, path = filesystem(uri)
    with faults("open", uri):
        if isinstance(fs, LocalFileSystem):
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - handed to SourceFile, which closes it
        else:
            file = fs.open(path, "rb", block_size=max(buffer_size, 1 << 20))
    return io.BufferedReader(SourceFile(cast(BinaryIO, file), uri), buffer_size)


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The whole content, or its first `limit` bytes. Raises `FileNotFoundError` and `EnvironmentFault`."""
    fs, path = filesystem(uri)
    with faults("read", uri):
        return cast(bytes, fs.cat_file(path, end=limit))


def put_new(local_path: str | Path, uri: str) -> bool:
    """Make `uri` from a local file, whole, only where nothing is there yet; False if something is.

    Locally by a hard link, so that a file is never seen half written; elsewhere by the store's create-only put.
    """
    fs, path = filesystem(uri)
    with faults("write", uri):
        if isinstance(fs, LocalFileSystem):
            return _link_new(Path(local_path), Path(path))
        try:
            fs.put_file(str(local_path), path, mode="create")
        except FileExistsError:
            return False
        return True


def put_bytes_new(data: bytes, uri: str) -> bool:
    """As `put_new`, from memory."""
    fs, path = filesystem(uri)
    with faults("write", uri):
        if isinstance(fs, LocalFileSystem):
            partial = _write_partial(data, Path(path))
            try:
                return _link_new(partial, Path(path))
            finally:
                partial.unlink(missing_ok=True)
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True


def put_bytes(data: bytes, uri: str) -> None:
    """Make or replace `uri`, whole."""
    fs, path = filesystem(uri)
    with faults("write", uri):
        if isinstance(fs, LocalFileSystem):
            os.replace(_write_partial(data, Path(path)), path)
        else:
            fs.pipe_file(path, data)


def delete(uri: str) -> None:
    """Remove a file; nothing happens if it is not there."""
    fs, path = filesystem(uri)
    with faults("delete", uri):
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return


def delete_folder(uri: str) -> None:
    """Remove everything below a folder; nothing happens if it is not there."""
    fs, path = filesystem(uri)
    with faults("delete", uri):
        try:
            fs.rm(path, recursive=True)
        except FileNotFoundError:
            return


def sha256(uri: str) -> str:
    """Hex digest of the content, streamed."""
    digest = hashlib.sha256()
    with open_read(uri) as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest(data: bytes) -> str:
    """SHA-256 of bytes in memory, hex."""
    return hashlib.sha256(data).hexdigest()


def free_bytes(folder: str | Path) -> int:
    """Free space of the disk that holds a local folder."""
    return shutil.disk_usage(folder).free


def _file_info(fs: fsspec.AbstractFileSystem, info: dict[str, Any]) -> FileInfo:
    local = isinstance(fs, LocalFileSystem)
    uri = info["name"] if local else fs.unstrip_protocol(info["name"])
    names = ("mtime",) if local else ("generation", "ETag", "etag", "LastModified", "mtime", "updated", "created")
    version = next((str(info[name]) for name in names if info.get(name)), "")
    return FileInfo(uri, int(info.get("size") or 0), version)


def _write_partial(data: bytes, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _link_new(source: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
    if target.exists():
        return False
    partial = target.parent / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
    try:
        shutil.copyfile(source, partial)
        try:
            os.link(partial, target)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: a rename is whole, though it cannot refuse to replace
            if target.exists():
                return False
            os.replace(partial, target)
        return True
    finally:
        partial.unlink(missing_ok=True)
