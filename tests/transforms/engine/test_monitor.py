"""Counters from workers to the launcher, and the request to stop on the way back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import pytest

from transforms.engine import monitor
from transforms.engine.monitor import COUNTERS, Monitor, read_totals, request_last, request_stop, shards_in_flight


def test_nothing_counted_yet_reads_as_zeros(tmp_path):
    assert read_totals(str(tmp_path)) == dict.fromkeys(COUNTERS, 0)


def test_counters_of_several_monitors_and_threads_are_added_up(tmp_path):
    monitors = [Monitor(str(tmp_path)) for _ in range(2)]

    def count(which: Monitor) -> None:
        for _ in range(500):
            which.add(rows_read=2, rows_written=1)

    threads = [threading.Thread(target=count, args=(which,)) for which in monitors * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in monitors:
        which.add(shards_done=1)
    totals = read_totals(str(tmp_path))
    assert (totals["rows_read"], totals["rows_written"]) == (4000, 2000)


def test_counters_of_another_process_are_seen(tmp_path):
    code = (
        "import sys; from transforms.engine.monitor import Monitor; "
        "Monitor(sys.argv[1]).add(shards_done=1, rows_read=5)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    totals = read_totals(str(tmp_path))
    assert (totals["shards_done"], totals["rows_read"]) == (1, 5)


def test_many_small_counts_are_few_writes_but_the_end_of_a_shard_shows_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "WRITE_INTERVAL", 3600)
    worker = Monitor(str(tmp_path))
    worker.add(rows_read=1)  # the first is written
    worker.add(rows_read=1)
    assert read_totals(str(tmp_path))["rows_read"] == 1
    worker.add(rows_read=1, shards_done=1)
    assert read_totals(str(tmp_path))["rows_read"] == 3


def test_shards_in_flight_are_those_of_the_processes_asked_for(tmp_path):
    first, second = Monitor(str(tmp_path)), Monitor(str(tmp_path))
    first.add(shards_in_flight=1)
    second.add(shards_in_flight=1)
    assert shards_in_flight(str(tmp_path), [os.getpid()]) == 2
    assert shards_in_flight(str(tmp_path), [os.getpid() + 1]) == 0
    second.add(shards_in_flight=-1)
    assert shards_in_flight(str(tmp_path), [os.getpid()]) == 1


def test_a_request_for_no_more_shards_is_no_request_to_stop(tmp_path):
    worker = Monitor(str(tmp_path))
    assert not worker.last_requested()
    request_last(str(tmp_path))
    assert worker.last_requested()
    assert not worker.stop_requested()
    assert not Monitor(None).last_requested()


def test_an_unknown_counter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows_eaten"):
        Monitor(str(tmp_path)).add(rows_eaten=1)


def test_the_request_to_stop_reaches_every_worker_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "LOOK_INTERVAL", 0)
    workers = [Monitor(str(tmp_path)) for _ in range(2)]
    assert not any(worker.stop_requested() for worker in workers)
    request_stop(str(tmp_path))
    assert all(worker.stop_requested() for worker in workers)
    (tmp_path / monitor.STOP_FILE).unlink()
    assert all(worker.stop_requested() for worker in workers)


def test_a_worker_whose_scratch_folder_has_gone_stops_and_does_not_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "LOOK_INTERVAL", 0)
    folder = tmp_path / "scratch"
    folder.mkdir()
    worker = Monitor(str(folder))
    shutil.rmtree(folder)
    worker.add(shards_done=1)
    assert worker.stop_requested()
    request_stop(str(folder))
    assert not folder.exists()


def test_without_a_folder_nothing_is_counted_or_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worker = Monitor(None)
    worker.add(shards_done=1)
    assert not worker.stop_requested()
    assert list(tmp_path.iterdir()) == []
