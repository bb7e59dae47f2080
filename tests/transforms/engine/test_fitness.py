"""A worker that cannot do any shard does not take those that others could do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shard_runs import PlainStep, shard_case
from tests.transforms.engine.test_beam import run_process
from transforms.engine import beam, fitness, resources
from transforms.engine.fitness import Fitness
from transforms.errors import ShardFailed, Stopped, StorageFailed, WorkerUnfit


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it waited each time, on a clock that only waiting moves."""
    now = 0.0
    seen: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        seen[-1] += seconds

    def monotonic() -> float:
        seen.append(0.0)
        return now

    monkeypatch.setattr(fitness.time, "sleep", sleep)
    monkeypatch.setattr(fitness.time, "monotonic", monotonic)
    return seen


def goes_on(unfit: Fitness) -> bool:
    try:
        unfit.require(lambda: False)
    except Stopped:
        return False
    return True


def test_a_worker_that_fails_waits_for_others_and_then_takes_no_more(waits: list[float]) -> None:
    unfit = Fitness(alone=False)
    for _ in range(3):
        assert goes_on(unfit)
        unfit.note(WorkerUnfit("no GPU"))
    assert waits == []
    taken = 0
    while goes_on(unfit):
        unfit.note(WorkerUnfit("no GPU"))
        taken += 1
    assert 5 <= taken <= 12
    assert 900 < sum(waits) <= fitness.ALL_WAITS


def test_a_worker_whose_shards_fail_for_other_reasons_goes_on(waits: list[float]) -> None:
    fit = Fitness(alone=False)
    for error in [WorkerUnfit("full"), WorkerUnfit("full"), None, *[StorageFailed("403")] * 9, ShardFailed("odd")]:
        assert goes_on(fit)
        fit.note(error)
    assert waits == []


def test_a_worker_that_works_again_is_trusted_again(waits: list[float]) -> None:
    unfit = Fitness(alone=False)
    for _ in range(6):
        unfit.note(WorkerUnfit("full"))
    assert goes_on(unfit)
    assert waits != []
    unfit.note(None)
    waits.clear()
    assert goes_on(unfit)
    assert waits == []


def test_a_run_on_one_machine_fails_three_shards_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoDevice(PlainStep):
        def setup(self) -> None:
            raise RuntimeError("no device")

    monkeypatch.setattr(beam, "make_steps", lambda job: [NoDevice()])
    monkeypatch.setattr(resources, "Fitness", lambda alone: Fitness(alone=True))
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"), rows=10, rows_per_shard=1)
    found = run_process(case, list(range(10)))
    assert found["shards"] == {"failed": 3, "stopped": 7}  # type: ignore[call-overload]
    assert {reason for _, reason in found["failed"]} == {"RuntimeError: no device"}  # type: ignore[call-overload]
