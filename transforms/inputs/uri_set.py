"""A set of URIs that is exact for all purposes and takes 24 bytes each: the sources of a plan may be ten millions."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np


class UriSet:
    """Holds 128 bits of a hash of each URI, and a few of its size and version."""

    def __init__(self, uris: Iterable[tuple[str, str]]) -> None:
        """URIs, each with its state: a text that differs if the file does."""
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
        self._second = np.frombuffer(second, np.uint64)[order]
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


def _hashes(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
