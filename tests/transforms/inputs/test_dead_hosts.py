"""When a host is left alone, and for how long; the clock is the test's."""

from __future__ import annotations

import pytest

from transforms.errors import StorageFailed
from transforms.inputs import dead_hosts
from transforms.inputs.dead_hosts import DeadHosts

HOST = "http://a.invalid"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(clock: Clock) -> DeadHosts:
    return DeadHosts(clock)


def alive(hosts: DeadHosts, url: str = f"{HOST}/x.jpg") -> bool:
    try:
        hosts.require_alive(url)
    except StorageFailed:
        return False
    return True


def fail(hosts: DeadHosts, clock: Clock, *times: float, url: str = HOST) -> None:
    for clock.now in times:
        hosts.failed(url, "refused")


def test_many_faults_at_once_are_a_moment(hosts: DeadHosts, clock: Clock) -> None:
    """As when sixteen rows are fetched at a time: each has its own tries before it."""
    fail(hosts, clock, *[0.0] * 16, *[0.5] * 16, 1.5, 3.5)
    assert alive(hosts)


def test_few_faults_are_none(hosts: DeadHosts, clock: Clock) -> None:
    fail(hosts, clock, 0, 100)
    assert alive(hosts)


def test_a_host_rests_for_as_long_as_it_has_been_dead(hosts: DeadHosts, clock: Clock) -> None:
    fail(hosts, clock, 100, 101, 106)
    clock.now = 111.9
    assert not alive(hosts)
    with pytest.raises(StorageFailed, match=r"http://a\.invalid:80 let nobody connect, 3 times in a row"):
        hosts.require_alive(HOST)
    clock.now = 112
    assert alive(hosts), "so that it is tried again"
    fail(hosts, clock, 120)
    clock.now = 139.9
    assert not alive(hosts)
    clock.now = 140
    assert alive(hosts)


def test_a_rest_is_never_longer_than_five_minutes(hosts: DeadHosts, clock: Clock) -> None:
    fail(hosts, clock, 0, 1, 10_000)
    clock.now = 10_299
    assert not alive(hosts)
    clock.now = 10_300
    assert alive(hosts)


def test_one_connection_clears_a_host(hosts: DeadHosts, clock: Clock) -> None:
    fail(hosts, clock, 0, 5, 10)
    hosts.connected(f"{HOST}/y.jpg")
    assert alive(hosts)
    fail(hosts, clock, 20, 24)
    hosts.connected(HOST)
    fail(hosts, clock, 28)
    assert alive(hosts)


def test_hosts_are_told_apart_by_scheme_and_port(hosts: DeadHosts, clock: Clock) -> None:
    fail(hosts, clock, 0, 5, 10)
    assert not alive(hosts, "HTTP://A.invalid:80/z?q#f")
    for url in ("https://a.invalid/", "http://a.invalid:8080/", "http://b.invalid/"):
        assert alive(hosts, url), url


def test_the_table_is_bounded(hosts: DeadHosts, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_hosts, "MOST_HOSTS", 3)
    for number in range(5):
        fail(hosts, clock, 0, 5, 10, url=f"http://{number}")
    assert [alive(hosts, f"http://{number}") for number in range(5)] == [True, True, False, False, False]
