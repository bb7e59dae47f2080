"""The folder of a worker process for its temporary files, on a machine that is not the launcher's.

A killed worker leaves its files behind: the next one on the machine removes folders that no process holds a lock in.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from transforms.errors import ShardFailed

PREFIX = "vqbeam-worker-"
LOCK_FILE = "alive"
YOUNG_SECONDS = 60  # a folder this new may not have its lock yet

_HELD: list[int] = []  # locks, open for as long as the process lives


def worker_folder(parent: str | None) -> str:
    """A new folder under `parent` (None: the system's for temporary files), held until the process ends.

    Removes those of processes that are gone. Raises `ShardFailed` if there can be none.
    """
    home = Path(parent or tempfile.gettempdir())
    try:
        home.mkdir(parents=True, exist_ok=True)
        for other in home.glob(f"{PREFIX}*"):
            if _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=home)
        lock = os.open(Path(folder, LOCK_FILE + ".new"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(Path(folder, LOCK_FILE + ".new"), Path(folder, LOCK_FILE))  # nobody finds it before it is locked
    except OSError as error:
        raise ShardFailed(f"no temporary folder can be made under {home}: {error}; choose another temp_dir") from error
    _HELD.append(lock)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_left(folder: Path) -> bool:
    """Whether no process holds a folder any more."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > YOUNG_SECONDS
        return False
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # held
        return False
    finally:
        os.close(lock)
