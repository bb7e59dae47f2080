"""Which GPUs a worker process takes when several run on one machine: each claims its share by locking files."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

_CLAIMS: list[int] = []  # open, hence locked, for as long as the process lives


def claim_gpus(count: int, processes: int, folder: str | None = None) -> list[int]:
    """The GPUs, of `count`, for one of `processes` worker processes: an equal share, at least one, none left over.

    Where more processes come than there are GPUs, they share them evenly.
    """
    home = Path(folder or tempfile.gettempdir())
    shares = min(count, max(1, processes))
    turn = 0
    while True:
        for share in range(shares):
            if _claim(home / f"vqbeam-gpus-{os.getuid()}-{count}-{shares}-{share}-{turn}.lock"):
                return list(range(share * count // shares, (share + 1) * count // shares))
        turn += 1


def _claim(path: Path) -> bool:
    """Lock a file for as long as the process lives; False where another process has it."""
    claim = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return False
    _CLAIMS.append(claim)
    return True
