"""The scratch folder of a run: made, removed, and swept up after runs that were killed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

import fsspec
import pytest

from pipelines.scratch import FILES, LOCK_FILE, YOUNG_SECONDS, scratch_folder, sweep
from transforms.errors import UsageError

KILLED_RUN = """
import os, signal, sys
from pipelines.scratch import scratch_folder
with scratch_folder(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_is_there_for_the_run_and_gone_after_it(tmp_path):
    with scratch_folder(str(tmp_path / "new")) as folder:
        assert os.path.basename(folder).startswith(f"vqbeam-{os.getpid()}-")
        open(os.path.join(folder, "left over"), "w").close()
    assert os.listdir(tmp_path / "new") == []


def test_threads_that_still_write_do_not_keep_the_folder(tmp_path):
    over = threading.Event()

    def write_on(folder: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            with suppress(FileNotFoundError), open(os.path.join(folder, str(number)), "w"):
                pass

    with scratch_folder(str(tmp_path)) as folder:
        threads = [threading.Thread(target=write_on, args=(folder,)) for _ in range(4)]
        for thread in threads:
            thread.start()
    left = os.listdir(tmp_path)
    over.set()
    for thread in threads:
        thread.join()
    assert left == []


def test_the_folder_is_removed_where_the_run_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch_folder(str(tmp_path)):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_RUN, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with scratch_folder(str(tmp_path)) as folder:
        assert not left.exists()
        assert os.path.isdir(folder)


def test_the_folder_of_a_run_that_lives_is_left_alone(tmp_path):
    with scratch_folder(str(tmp_path)) as first, scratch_folder(str(tmp_path)) as second:
        assert os.path.isdir(first)
        assert os.path.isdir(second)


def test_folders_of_others_are_left_alone(tmp_path):
    for name in ("vqbeam-output-1", "vqbeam-12", "data", "vqbeam-12-new"):
        (tmp_path / name).mkdir()
    with scratch_folder(str(tmp_path)):
        assert {"vqbeam-output-1", "vqbeam-12", "data", "vqbeam-12-new"} < set(os.listdir(tmp_path))


def test_a_folder_killed_before_it_was_locked_is_swept_when_it_is_old(tmp_path):
    old = tmp_path / "vqbeam-12-old"
    old.mkdir()
    os.utime(old, (0, os.stat(old).st_mtime - YOUNG_SECONDS - 1))
    assert not (old / LOCK_FILE).exists()
    with scratch_folder(str(tmp_path)):
        assert not old.exists()


def test_the_folder_of_a_run_that_is_about_to_lock_it_is_left_alone(tmp_path, monkeypatch):
    lock = fcntl.flock

    def after_another_run_has_swept(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        sweep(tmp_path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", after_another_run_has_swept)
    with scratch_folder(str(tmp_path)) as folder:
        assert os.listdir(folder)


def test_a_parent_in_which_no_folder_can_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file.*--temp_dir"), scratch_folder(str(tmp_path / "file")):
        pass


def test_a_fifo_in_a_shared_folder_does_not_hang_the_start(tmp_path):
    other = tmp_path / "vqbeam-1-other"
    other.mkdir()
    os.mkfifo(other / LOCK_FILE)
    with scratch_folder(str(tmp_path)):
        assert (other / LOCK_FILE).exists()


KILLED_IN_WORK = """
import os, signal, subprocess, sys, tempfile
from pipelines.scratch import scratch_folder
with scratch_folder(sys.argv[1]):
    tempfile.mkdtemp(prefix="beam-pipeline-temp")
    subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkstemp(prefix='worker')"], check=True)
    import fsspec
    fsspec.filesystem("simplecache", target_protocol="memory")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_of_other_packages_go_with_the_folder(tmp_path):
    system, home = tmp_path / "system", tmp_path / "home"
    system.mkdir()
    environment = {**os.environ, "TMPDIR": str(system)}
    subprocess.run([sys.executable, "-c", KILLED_IN_WORK, str(home)], env=environment, check=False)
    (left,) = home.iterdir()
    assert len(list((left / FILES).iterdir())) == 3
    with scratch_folder(str(home)) as folder:
        assert os.listdir(home) == [os.path.basename(folder)]
    assert os.listdir(system) == []


def test_the_process_is_afterwards_as_it_was(tmp_path):
    before = dict(os.environ), tempfile.gettempdir()
    with scratch_folder(str(tmp_path)) as folder:
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == os.path.join(folder, FILES)
        copies = fsspec.filesystem("simplecache", target_protocol="memory")
        assert copies.storage[0].startswith(folder)
    assert (dict(os.environ), tempfile.gettempdir()) == before
    assert os.path.isdir(fsspec.filesystem("simplecache", target_protocol="memory").storage[0])
