"""Worker processes of one machine share its GPUs without talking to each other."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from transforms.engine.resources import claim_gpus

FORKS = multiprocessing.get_context("forkserver")  # of one process, which imports for all of them
FORKS.set_forkserver_preload(["transforms.engine.resources"])
PATIENCE = 200  # seconds


def claim_and_hold(claims: Any, end: Any, gpus: int, processes: int, folder: str) -> None:
    claims.put(tuple(claim_gpus(gpus, processes, folder)))
    end.wait(PATIENCE)


def claims_of(processes: int, gpus: int, share_of: int, folder: Path) -> list[tuple[int, ...]]:
    """What processes claim that live at the same time."""
    claims, end = FORKS.Queue(), FORKS.Event()
    workers: list[BaseProcess] = [
        FORKS.Process(target=claim_and_hold, args=(claims, end, gpus, share_of, str(folder))) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    claimed = [claims.get(timeout=PATIENCE) for _ in workers]
    end.set()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return claimed


@pytest.mark.parametrize(
    ("gpus", "processes", "shares"),
    [
        (4, 1, [[0, 1, 2, 3]]),
        (4, 4, [[0], [1], [2], [3]]),
        (4, 3, [[0], [1], [2, 3]]),
        (2, 4, [[0], [1], [0], [1]]),
    ],
)
def test_each_process_gets_its_share_and_no_gpu_is_left_over(
    tmp_path: Path, gpus: int, processes: int, shares: list[list[int]]
) -> None:
    assert Counter(claims_of(processes, gpus, processes, tmp_path)) == Counter(map(tuple, shares))


def test_what_a_process_held_is_free_when_it_has_ended(tmp_path: Path) -> None:
    for _ in range(3):
        assert claims_of(1, 2, 2, tmp_path) == [(0,)]


def test_a_link_put_where_a_lock_belongs_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f"vqbeam-gpus-{os.getuid()}-1-1-0-0.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        claim_gpus(1, 1, str(tmp_path))
    assert victim.read_text() == "precious"
