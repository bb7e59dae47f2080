"""Worker processes of one machine share its GPUs without talking to each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from transforms.engine.resources import claim_gpus

CLAIM = """
import sys
from transforms.engine.resources import claim_gpus
print(*claim_gpus(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]), flush=True)
sys.stdin.read()
"""


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
    command = [sys.executable, "-c", CLAIM, str(gpus), str(processes), str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    claimed = [tuple(map(int, worker.stdout.readline().split())) for worker in workers if worker.stdout]
    for worker in workers:
        worker.communicate()
    assert Counter(claimed) == Counter(map(tuple, shares))


def test_what_a_process_held_is_free_when_it_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, "2", "2", str(tmp_path)]
    for _ in range(3):
        ended = subprocess.run(command, input="", stdout=subprocess.PIPE, text=True, check=True)
        assert ended.stdout.split() == ["0"]


def test_a_link_put_where_a_lock_belongs_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f"vqbeam-gpus-{os.getuid()}-1-1-0-0.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        claim_gpus(1, 1, str(tmp_path))
    assert victim.read_text() == "precious"
