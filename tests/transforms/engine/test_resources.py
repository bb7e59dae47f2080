"""The resources of a worker process: byte budget, share of rejected rows, model steps, room on the disk."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from transforms import storage
from transforms.engine.monitor import Monitor
from transforms.engine.resources import ROOM_PER_SHARD, ByteBudget, RejectionRate, Resources, require_room
from transforms.errors import ShardFailed


def start(call: object, *args: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def waits(budget: ByteBudget, number: int) -> None:
    """Until so many threads wait for the budget."""
    while len(budget._changed._waiters) < number:  # type: ignore[attr-defined]
        pass


def test_one_batch_is_let_through_however_big() -> None:
    share = ByteBudget(100).share()
    assert share.acquire(1000)


def test_a_shard_waits_until_another_gives_back() -> None:
    budget = ByteBudget(100)
    first, second = budget.share(), budget.share()
    assert first.acquire(80)
    taken: list[bool] = []
    thread = start(lambda: taken.append(second.acquire(40)))
    waits(budget, 1)
    assert taken == []
    first.release(80)
    thread.join(10)
    assert taken == [True]


def test_a_shard_that_is_abandoned_while_it_waits_for_itself_goes_on() -> None:
    """It waits for bytes that it holds itself."""
    budget = ByteBudget(100)
    share = budget.share()
    assert share.acquire(90)
    taken: list[bool] = []
    thread = start(lambda: taken.append(share.acquire(90)))
    waits(budget, 1)
    share.close()
    thread.join(10)
    assert taken == [False]


def test_two_shards_abandoned_while_both_wait_leave_the_budget_whole() -> None:
    budget = ByteBudget(100)
    shares = [budget.share(), budget.share()]
    taken: list[bool] = []
    assert all(share.acquire(50) for share in shares)
    threads = [start(lambda share=share: taken.append(share.acquire(60))) for share in shares]
    waits(budget, 2)
    for share in shares:
        share.close()
    for thread in threads:
        thread.join(10)
    assert taken.count(False) >= 1
    assert budget._used == 0


def test_closing_a_share_gives_back_what_it_held_once() -> None:
    budget = ByteBudget(100)
    share = budget.share()
    assert share.acquire(60)
    share.close()
    share.close()
    share.release(60)
    assert budget._used == 0
    assert not share.acquire(1)


def test_many_threads_leave_the_budget_whole() -> None:
    budget = ByteBudget(1000)

    def work(size: int) -> None:
        share = budget.share()
        for _ in range(200):
            assert share.acquire(size)
            share.release(size)
        share.close()

    threads = [start(work, size) for size in (100, 300, 500, 700)]
    for thread in threads:
        thread.join(60)
    assert budget._used == 0


def test_the_share_of_rejected_rows_is_judged_after_a_thousand_rows() -> None:
    rate = RejectionRate(0.1)
    rate.add(999, {"broken_image": 999})
    with pytest.raises(ShardFailed, match=r"999 of 1000 rows rejected so far \(999 broken_image\).*0\.1"):
        rate.add(1, {})


def test_a_share_at_the_limit_is_not_above_it() -> None:
    rate = RejectionRate(0.1)
    rate.add(1000, {"broken_image": 60, "missing_image": 40})
    with pytest.raises(ShardFailed, match=r"60 broken_image, 41 missing_image"):
        rate.add(1, {"missing_image": 1})


class CountedStep:
    batch_size = 4

    def __init__(self) -> None:
        self.setups = 0

    def setup(self) -> None:
        self.setups += 1

    def __call__(self, batch: object) -> object:
        return batch


def test_each_device_loads_its_model_once_and_shards_spread_over_the_devices() -> None:
    steps = [CountedStep(), CountedStep()]
    owned = Resources(steps, decode_threads=1, max_error_rate=1, monitor=Monitor(None))  # type: ignore[arg-type]
    used: Counter[int] = Counter()
    for _ in range(3):
        with owned.step() as first, owned.step() as second:
            assert first is not second
            used.update([id(first), id(second)])
    assert [step.setups for step in steps] == [1, 1]
    assert set(used.values()) == {3}


def test_a_model_that_did_not_load_is_tried_again_by_the_next_shard() -> None:
    class Unlucky(CountedStep):
        def setup(self) -> None:
            super().setup()
            if self.setups == 1:
                raise ShardFailed("no weights yet")

    step = Unlucky()
    owned = Resources([step], decode_threads=1, max_error_rate=1, monitor=Monitor(None))  # type: ignore[list-item]
    with pytest.raises(ShardFailed, match="no weights yet"), owned.step():
        pass
    with owned.step():
        assert step.setups == 2
    assert owned._shards_on == [0]


def test_too_little_room_for_temporary_files_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 2 * ROOM_PER_SHARD)
    require_room(str(tmp_path), 2)
    with pytest.raises(ShardFailed, match=rf"{tmp_path} has 0\.5 GB free.*0\.8 GB.*temp_dir"):
        require_room(str(tmp_path), 3)
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 0)
    with pytest.raises(ShardFailed, match=tempfile.gettempdir()):
        require_room(None)
