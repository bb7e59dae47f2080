"""The temporary folder of a worker elsewhere: held while it lives, removed by the next one once it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transforms.engine import worker_folder
from transforms.errors import ShardFailed

KILLED = """
import os, signal, sys
from transforms.engine.worker_folder import worker_folder
folder = worker_folder(sys.argv[1])
os.mkdir(os.path.join(folder, "shard-x"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_left_is_removed_and_what_is_held_is_not(tmp_path):
    held = worker_folder.worker_folder(str(tmp_path))
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, env={**os.environ, "PYTHONPATH": "."})
    assert len(list(tmp_path.iterdir())) == 2
    new = worker_folder.worker_folder(str(tmp_path))
    assert set(tmp_path.iterdir()) == {Path(held), Path(new)}


def test_a_folder_without_a_lock_is_spared_while_it_is_young(tmp_path):
    young, old = tmp_path / f"{worker_folder.PREFIX}a", tmp_path / f"{worker_folder.PREFIX}b"
    young.mkdir()
    old.mkdir()
    before = time.time() - 2 * worker_folder.YOUNG_SECONDS
    os.utime(old, (before, before))
    worker_folder.worker_folder(str(tmp_path))
    assert young.exists()
    assert not old.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ShardFailed, match=r"no temporary folder can be made under .*temp_dir"):
        worker_folder.worker_folder(str(tmp_path / "file"))
