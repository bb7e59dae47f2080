"""Which GPUs a worker process takes when several run on one machine: each claims its share by locking files."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_CLAIMS: list[IO[str]] = []  # open, hence locked, for as long as the process lives


def claim_gpus(count: int, processes: int, folder: str | None = None) -> list[int]:
    """The GPUs, of `count`, for one of `processes` worker processes: an equal share, at least one.

    Where more processes come than there are GPUs, they share them evenly.
    """
    share = max(1, count // max(1, processes))
    home = Path(folder or tempfile.gettempdir())
    for turn in range(processes + count):
        for first in range(0, count, share):
            claim = open(home / f"vqbeam-gpu-{os.getuid()}-{first}-{turn}.lock", "w")  # noqa: SIM115 - kept open
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                claim.close()
                continue
            _CLAIMS.append(claim)
            return list(range(first, min(first + share, count)))
    return [0]
