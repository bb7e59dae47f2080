"""How many shards of a process run the model at once, however many its engine begins."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from transforms.engine import worker
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources


@pytest.mark.parametrize(("calls", "most"), [(1, 1), (2, 2), (None, 4)])
def test_no_more_calls_than_allowed_are_in_a_step_at_once(calls, most):
    step = SimpleNamespace(setup=lambda: None)
    resources = Resources([step], decode_threads=1, max_error_rate=1.0, monitor=Monitor(None), calls=calls)
    inside = seen = 0
    lock, together = threading.Lock(), threading.Barrier(4)

    def call() -> None:
        nonlocal inside, seen
        together.wait()
        with resources.step() as mine, resources.calling(mine):
            with lock:
                inside += 1
                seen = max(seen, inside)
            time.sleep(0.1)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == most


@pytest.mark.parametrize(
    ("device", "threads", "calls"), [("cpu", 1, 8), ("cpu", 8, 1), ("cpu", 3, 2), ("cpu", 100, 1), ("cuda:0", 1, 1)]
)
def test_calls_follow_from_cores_and_threads(monkeypatch, device, threads, calls):
    monkeypatch.setattr(worker, "cores", lambda: 8)
    assert worker.calls_at_once(SimpleNamespace(device=device, decode_threads=threads)) == calls
