"""The scratch folder of a run on this machine: counters, the request to stop, temporary files; gone when the run is.

A launcher holds a lock in its folder for as long as it lives, so the next run can tell the folders of killed
runs from those in use, even if process numbers are those of another container. Temporary files of other packages
(Beam's folders, fsspec's copies of remote files) lie in it, too, whichever process of the run makes them.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transforms.errors import UsageError

PREFIX = "vqbeam-"
LOCK_FILE = "alive"
FILES = "files"  # the folder in it that is the system's for temporary files, for this run
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # kept from run to run
YOUNG_SECONDS = 60  # a folder this new may not have its lock yet


@contextmanager
def scratch_folder(parent: str | None) -> Iterator[str]:
    """A new folder `vqbeam-PID-...` under `parent` (default: the system's folder for temporary files).

    Removes what killed runs left there first. While the context is open, temporary files of this process, and of those
    that it starts, go into the folder. Raises `UsageError` if it cannot be made.
    """
    home = Path(parent or tempfile.gettempdir())
    try:
        home.mkdir(parents=True, exist_ok=True)
        sweep(home)
        folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=home)
    except OSError as error:
        raise UsageError(f"no temporary folder can be made under {home}: {error}; choose another --temp_dir") from error
    with open(os.path.join(folder, LOCK_FILE + ".new"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(lock.name, os.path.join(folder, LOCK_FILE))  # nobody finds it before it is locked
        try:
            with _temporary_files_in(os.path.join(folder, FILES)):
                yield folder
        finally:
            _remove(folder)


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    os.mkdir(folder)
    changed, default = {"TMPDIR": folder}, tempfile.tempdir
    if COMPILED not in os.environ:
        with suppress(OSError, KeyError, ImportError):  # no name for this user
            changed[COMPILED] = os.path.join(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = default
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_copies()


def _forget_copies() -> None:
    """Have fsspec make its caches anew, whose folders are gone, should this process go on."""
    cached = sys.modules.get("fsspec.implementations.cached")
    classes = [cached.CachingFileSystem] if cached else []
    for kind in classes:
        kind.clear_instance_cache()
        classes += kind.__subclasses__()


def _remove(folder: str) -> None:
    """Under another name first: a thread that was given up on can then put nothing more into it."""
    doomed = folder + "-gone"
    with suppress(OSError):
        os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(home: Path) -> None:
    """Removes the scratch folders under `home` whose launcher is gone."""
    for folder in home.glob(PREFIX + "*-*"):
        if folder.name.split("-")[1].isdigit() and _is_stale(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    try:
        number = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # a FIFO would wait for ever
        with os.fdopen(number) as lock:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return False
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > YOUNG_SECONDS
        return False
    except OSError:  # locked by its launcher, or another user's
        return False
