"""Web hosts that let nobody connect. A worker process remembers them, so that not every row of one waits for it."""

from __future__ import annotations

import threading
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from transforms.errors import StorageFailed, amount, shortened

FAULTS = 3  # in a row, before a host counts as dead
DEAD_AFTER_S = 5.0  # since the first of them: longer than the tries of a row that is refused at once, 0.5 + 1 + 2
LONGEST_REST_S = 300.0
MOST_HOSTS = 10_000  # remembered; the one that failed longest ago is forgotten first
LONGEST_REASON = 300  # characters
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass
class _Silence:
    since: float  # when the first connection failed
    faults: int = 0
    rest_until: float = 0.0
    reason: str = ""


class DeadHosts:
    """By scheme, host and port, the hosts of which each connection failed since some time.

    A host is left alone for as long as it has been dead, at most `LONGEST_REST_S`: so a short trouble costs rows for no
    more than twice its length. Then the rows that need it try again, and the first that connects clears it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent: OrderedDict[tuple[str, str, int], _Silence] = OrderedDict()
        self._lock = threading.Lock()

    def require_alive(self, url: str) -> None:
        """Raises `StorageFailed` if the host of `url` is left alone."""
        silence = self._silent.get(_host_of(url))
        left = silence.rest_until - self._clock() if silence else 0.0
        if silence and left > 0:
            scheme, host, port = _host_of(url)
            raise StorageFailed(
                f"{scheme}://{host}:{port} let nobody connect, {amount(silence.faults, 'times')} in a row, and is not "
                f"tried again for {max(1, round(left))} s. Last: {silence.reason}"
            )

    def failed(self, url: str, reason: str) -> None:
        """No connection could be made."""
        key, now = _host_of(url), self._clock()
        with self._lock:
            silence = self._silent.setdefault(key, _Silence(now))
            self._silent.move_to_end(key)
            if len(self._silent) > MOST_HOSTS:
                self._silent.popitem(last=False)
            silence.faults += 1
            silence.reason = shortened(reason, LONGEST_REASON)
            dead_s = now - silence.since
            if silence.faults >= FAULTS and dead_s >= DEAD_AFTER_S:
                silence.rest_until = now + min(dead_s, LONGEST_REST_S)

    def connected(self, url: str) -> None:
        if self._silent:
            with self._lock:
                self._silent.pop(_host_of(url), None)


def _host_of(url: str) -> tuple[str, str, int]:
    """Raises `ValueError` for a port that is no number."""
    parts = urllib.parse.urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(scheme, 0)
