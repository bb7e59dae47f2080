"""Where samples of tars begin, kept for the process: a tar has no index, so a slice of it is found by reading up to it.

The reader of the slice before has been there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MAX_TARS = 64
MAX_PLACES = 256  # of a tar


@dataclass(frozen=True, slots=True)
class Place:
    """The beginning of a sample: its number, the byte of its first header, whether its name goes up to the last dot, as
    that of the one before, and the extensions of that."""

    number: int = 0
    offset: int = 0
    by_last_dot: bool = False
    before: frozenset[str] = frozenset()


class Places:
    """Safe to share between threads. A tar is whatever tells it from others, with the rules by which it is read."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, dict[int, Place]] = OrderedDict()
        self._lock = threading.Lock()

    def nearest(self, tar: Hashable, number: int) -> Place:
        """The last place that is known and not behind a sample; the beginning of the tar if there is none."""
        with self._lock:
            known = self._known.get(tar, {})
            return known[max(found)] if (found := [one for one in known if one <= number]) else Place()

    def add(self, tar: Hashable, place: Place) -> None:
        with self._lock:
            known = self._known.setdefault(tar, {})
            self._known.move_to_end(tar)
            known[place.number] = place
            if len(known) > MAX_PLACES:
                del known[min(known)]
            if len(self._known) > MAX_TARS:
                self._known.popitem(last=False)
