"""Objects of a store as files: the same bytes, and few that nobody wanted."""

from __future__ import annotations

import io
import os
import random

import pytest

from transforms.source_files import FREE, MOST, SHARE, RangeReader, SourceFile

CONTENT = os.urandom(3 << 20)


class Counted:
    """Ranges of `CONTENT`, and the bytes and requests that they cost."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, start: int, stop: int) -> bytes:
        self.sizes.append(stop - start)
        return CONTENT[start:stop]


@pytest.mark.parametrize("seed", range(5))
def test_reading_and_seeking_give_the_bytes_of_the_object(seed: int) -> None:
    chance = random.Random(seed)
    fetch, truth = Counted(), io.BytesIO(CONTENT)
    file = io.BufferedReader(SourceFile(RangeReader(fetch, len(CONTENT), whole=seed == 0), "x"), 1 << 14)
    for _ in range(60):
        if chance.random() < 0.4:
            place = chance.choice([chance.randrange(len(CONTENT) + 10), truth.tell() + chance.randrange(100_000)])
            assert file.seek(place) == truth.seek(place)
        size = chance.choice([0, 1, 512, 70_000, 1_000_000])
        assert file.read(size) == truth.read(size)
    assert file.seek(-5, io.SEEK_END) == len(CONTENT) - 5
    assert file.read() == CONTENT[-5:]


@pytest.mark.parametrize("seed", range(5))
def test_an_eighth_at_most_is_read_in_vain(seed: int) -> None:
    chance = random.Random(seed)
    fetch = Counted()
    file = RangeReader(fetch, len(CONTENT))
    read = 0
    for _ in range(200):
        if chance.random() < 0.5:
            file.seek(chance.randrange(len(CONTENT)))
        read += len(file.read(chance.choice([100, 5_000, 60_000])))
    assert sum(fetch.sizes) <= read * (1 + 1 / SHARE) + FREE


def test_a_reader_that_goes_on_gets_more_at_a_time() -> None:
    fetch = Counted()
    file = RangeReader(fetch, len(CONTENT))
    while file.read(1 << 14):
        pass
    assert sum(fetch.sizes) == len(CONTENT)
    assert len(fetch.sizes) < 20
    assert max(fetch.sizes) > FREE


def test_what_is_read_whole_comes_in_large_parts() -> None:
    fetch = Counted()
    file = RangeReader(fetch, len(CONTENT), whole=True)
    while file.read(1 << 14):
        pass
    assert fetch.sizes == [len(CONTENT)]
    assert len(CONTENT) < MOST


def test_an_answer_that_is_too_short_is_no_end_of_the_file() -> None:
    file = RangeReader(lambda start, stop: CONTENT[start : stop - 1], len(CONTENT))
    with pytest.raises(EOFError, match="bytes from byte 0 on came"):
        file.read(10)
