"""Sets of URIs, which may be ten millions: exact for all purposes by hashes of 24 bytes, or by walking along them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np

MOST_WALKS = 8

Pairs = Iterable[tuple[str, str]]
"""URIs, each with its state: a text that differs if the file does."""


class UriSet(Container[str]):
    """Holds 128 bits of a hash of each URI, and 64 of its state."""

    def __init__(self, uris: Pairs) -> None:
        first, second, states = array("Q"), array("Q"), array("Q")
        last = ""
        for uri, state in uris:
            if uri == last:  # the next slice of the same file
                continue
            last = uri
            high, low = _hashes(uri)
            first.append(high)
            second.append(low)
            states.append(_hashes(state)[0])
        order = np.argsort(np.frombuffer(first, np.uint64), kind="stable")
        self._first = np.frombuffer(first, np.uint64)[order]
        del first  # each column before the next is made
        self._second = np.frombuffer(second, np.uint64)[order]
        del second
        self._states = np.frombuffer(states, np.uint64)[order]

    def __len__(self) -> int:
        return len(self._first)

    def __contains__(self, uri: object) -> bool:
        return self._find(str(uri)) is not None

    def has_changed(self, uri: str, state: str) -> bool:
        """Whether a URI is in the set, with another state."""
        at = self._find(uri)
        return at is not None and int(self._states[at]) != _hashes(state)[0]

    def _find(self, uri: str) -> int | None:
        high, low = _hashes(uri)
        at = int(np.searchsorted(self._first, np.uint64(high)))
        while at < len(self._first) and int(self._first[at]) == high:
            if int(self._second[at]) == low:
                return at
            at += 1
        return None


class UriWalk(Container[str]):
    """A set of sorted URIs that holds none: it walks along them as it is asked for one after another.

    `pairs` gives them from the first one on. If questions out of order take too many walks, they are held after all.
    """

    def __init__(self, pairs: Callable[[], Pairs]) -> None:
        self._pairs = pairs
        self._walks = 0
        self._rest: Iterator[tuple[str, str]] = iter(())
        self._head: tuple[str, str] | None = None
        self._last: str | None = None
        self._held: UriSet | None = None

    def __contains__(self, uri: object) -> bool:
        head = self._walk_to(str(uri))
        return str(uri) in self._held if self._held is not None else head is not None

    def has_changed(self, uri: str, state: str) -> bool:
        """Whether a URI is in the set, with another state."""
        head = self._walk_to(uri)
        return self._held.has_changed(uri, state) if self._held is not None else head not in (None, state)

    def _walk_to(self, uri: str) -> str | None:
        """The state of a URI; None if it is not there, or all are held."""
        if self._held is not None:
            return None
        if self._last is None or uri < self._last:
            self._walks += 1
            if self._walks > MOST_WALKS:
                self._held, self._rest = UriSet(self._pairs()), iter(())
                return None
            self._rest = iter(self._pairs())
            self._head = next(self._rest, None)
        self._last = uri
        while self._head is not None and self._head[0] < uri:
            self._head = next(self._rest, None)
        return self._head[1] if self._head is not None and self._head[0] == uri else None


def uri_lookup(pairs: Callable[[], Pairs], are_sorted: bool) -> UriSet | UriWalk:
    """The set of the URIs that `pairs` gives as often as it is called."""
    return UriWalk(pairs) if are_sorted else UriSet(pairs())


def _hashes(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
