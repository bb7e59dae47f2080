"""Files on the local disk: put whole or not at all, durable, and what killed writers leave behind.

A file is written under a hidden name beside its own, then linked or renamed. The writer holds a lock on it meanwhile,
so that others can tell what a killed writer left from the work of a live one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from transforms.errors import StorageFailed

PARTIAL_PREFIX = ".vqbeam-partial-"  # hidden: readers of a data folder skip names with a leading dot
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)  # no hard links here
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)  # folders of some network disks
TRIES = 3
CHUNK = 1 << 20


def create(source: bytes | Path, target: Path) -> bool:
    """Create a file from `source`, whole, unless `target` exists; False if it does. Its name is not durable yet."""
    _make_folder(target.parent)
    if isinstance(source, Path):
        _sync_file(source)
        try:
            os.link(source, target)
            return True
        except FileExistsError:
            return False
        except OSError:  # another disk, most often; a worse fault will show in the copy beside the target
            pass
    return not target.exists() and _through_partial(source, target, _link)


def replace(source: bytes | Path, target: Path) -> None:
    """Create or replace a file, whole and durable, by a content or by a link to a file: both then share their bytes."""
    _make_folder(target.parent)
    if not isinstance(source, Path) or not _replace_with_link(source, target):
        _through_partial(source, target, _rename)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def delete_partials(folder: Path, name: str) -> None:
    """Remove the partial files of names that begin with `name`, also of live writers: those begin anew."""
    for entry in os.listdir(folder):
        if entry.startswith(PARTIAL_PREFIX + name):
            Path(folder, entry).unlink(missing_ok=True)


def delete_leftovers(folder: Path) -> None:
    """Remove the partial files of killed writers."""
    for entry in os.listdir(folder):
        if entry.startswith(PARTIAL_PREFIX):
            # The fault: it is locked by its writer, gone, or another user's.
            with suppress(OSError), open(os.open(folder / entry, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(folder, entry).unlink()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _through_partial(source: bytes | Path, target: Path, publish: Callable[[Path, Path], bool]) -> bool:
    """Write a partial file and `publish` it as the target, anew if another process removed it meanwhile."""
    for _ in range(TRIES):
        with _partial(target) as (partial, file):
            _write(source, file)
            with suppress(FileNotFoundError):
                return publish(partial, target)
    raise StorageFailed(f"cannot write {target}: another process removes its temporary files")


def _link(partial: Path, target: Path) -> bool:
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            return False
        os.replace(partial, target)  # whole as well, though it cannot refuse to replace
    return True


def _rename(partial: Path, target: Path) -> bool:
    os.replace(partial, target)
    return True


def _replace_with_link(origin: Path, target: Path) -> bool:
    """Replace `target` by another name of `origin`; False if there are no links here."""
    for _ in range(TRIES):
        partial = _name(target)
        try:
            os.link(origin, partial)
            os.replace(partial, target)
            return True
        except FileNotFoundError:  # no origin, or the link was taken for a leftover
            if not origin.exists():
                raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        finally:
            partial.unlink(missing_ok=True)  # also if it was the target already, when renaming does nothing
    return False


def _name(target: Path) -> Path:
    return target.parent / f"{PARTIAL_PREFIX}{target.name}-{uuid.uuid4().hex[:12]}"


@contextmanager
def _partial(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file beside the target, locked while the context is open and then gone."""
    partial = _name(target)
    try:
        with open(partial, "xb") as file:
            with suppress(OSError):  # some network disks have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield partial, file
    finally:
        partial.unlink(missing_ok=True)


def _write(source: bytes | Path, file: BinaryIO) -> None:
    if isinstance(source, bytes):
        file.write(source)
    else:
        with open(source, "rb") as content:
            shutil.copyfileobj(content, file, CHUNK)
    file.flush()
    os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
