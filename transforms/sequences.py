"""Sequences whose items are made when they are asked for, since there may be millions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

Item = TypeVar("Item", covariant=True)


class MadeOnDemand(Sequence[Item]):
    """A sequence that a subclass gives by its length and `make`; a slice is a list."""

    @abstractmethod
    def make(self, number: int) -> Item:
        """The item at `number`, which is not negative and below the length."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        numbers = range(len(self))[index]  # raises IndexError
        return self.make(numbers) if isinstance(numbers, int) else list(map(self.make, numbers))

    def __iter__(self) -> Iterator[Item]:
        return map(self.make, range(len(self)))
