"""Items are made when they are asked for, by number, slice or in turn."""

from __future__ import annotations

import pytest

from transforms.sequences import MadeOnDemand


class Squares(MadeOnDemand[int]):
    def __init__(self) -> None:
        self.made: list[int] = []

    def __len__(self) -> int:
        return 5

    def make(self, number: int) -> int:
        self.made.append(number)
        return number**2


def test_items_are_those_of_a_list() -> None:
    squares, expected = Squares(), [0, 1, 4, 9, 16]
    assert list(squares) == expected
    assert [squares[number] for number in range(-5, 5)] == expected + expected
    for part in (slice(1, 3), slice(-2, None), slice(None, None, -2), slice(3, 100), slice(4, 1)):
        assert squares[part] == expected[part]
    for number in (5, -6):
        with pytest.raises(IndexError):
            squares[number]


def test_nothing_is_made_before_it_is_asked_for() -> None:
    squares = Squares()
    items = iter(squares)
    assert squares.made == []
    assert [next(items), squares[-1], *squares[2:3]] == [0, 16, 4]
    assert squares.made == [0, 4, 2]
