"""Connections to web servers that a process keeps open, each within the time of the try that uses it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # else only where something is fetched: `vqbeam encode --help` imports this module
    import urllib3

USER_AGENT = "vqbeam"
HOSTS, CONNECTIONS = 64, 64  # to how many hosts connections stay open, and how many to each
ADDRESSES = 8  # of a host that are tried; they share the time for connecting
MOMENT_S = 0.05  # that an address gets in any case


class TimeLimit:
    """Ends the connections of one try when its time is over: a server that sends a byte now and then keeps within every
    timeout of a socket. `connecting` is whether a connection is being made, be it by TCP or TLS, or failed."""

    def __init__(self, seconds: float) -> None:
        self.reached = False
        self.connecting = False
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"not done in {self._seconds:g} s"

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def watch(self, opened: socket.socket) -> None:
        """By a handle of its own: only the thread that reads may touch TLS."""
        with self._lock:
            self._sockets.append(socket.fromfd(opened.fileno(), opened.family, opened.type))
        if self.reached:
            self.reach()

    def reach(self) -> None:
        self.reached = True
        with self._lock:
            for watched in self._sockets:
                with suppress(OSError):  # the server was first
                    watched.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()


_TRY = threading.local()  # the `limit` of the try that a thread is at


@contextmanager
def time_limit(seconds: float) -> Iterator[TimeLimit]:
    limit = _TRY.limit = TimeLimit(seconds)
    timer = threading.Timer(seconds, limit.reach)
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
        limit.close()


@cache
def connections(proxy: str | None) -> urllib3.PoolManager:
    """The connections of this process that stay open, direct ones or through a proxy, each within its try's limit."""
    import urllib3

    class Limited:
        """A connection that is made within the limit, and whose answers are, be it kept open from an earlier try."""

        host: str
        port: int
        sock: socket.socket
        timeout: float  # for connecting
        socket_options: Sequence[tuple[int, int, int]] | None

        def connect(self) -> None:
            _TRY.limit.connecting = True
            super().connect()  # type: ignore[misc]
            _TRY.limit.connecting = False

        def _new_conn(self) -> socket.socket:
            import urllib3.exceptions as errors

            try:
                opened = _open_socket(self.host, self.port, min(self.timeout, _TRY.limit.left()), self.socket_options)
            except socket.gaierror as error:
                raise errors.NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
            except TimeoutError as error:
                raise errors.ConnectTimeoutError(self, f"connecting to {self.host} took too long") from error
            except OSError as error:
                raise errors.NewConnectionError(self, f"cannot connect: {error}") from error  # type: ignore[arg-type]
            _TRY.limit.watch(opened)
            opened.settimeout(self.timeout)  # of each step of a TLS handshake
            return opened

        def getresponse(self) -> urllib3.HTTPResponse:
            _TRY.limit.watch(self.sock)
            answer: urllib3.HTTPResponse = super().getresponse()  # type: ignore[misc]
            return answer

    class HTTP(urllib3.HTTPConnectionPool):
        ConnectionCls = type("Connection", (Limited, urllib3.HTTPConnectionPool.ConnectionCls), {})

    class HTTPS(urllib3.HTTPSConnectionPool):
        ConnectionCls = type("Connection", (Limited, urllib3.HTTPSConnectionPool.ConnectionCls), {})

    options: dict[str, Any] = {
        "num_pools": HOSTS,
        "maxsize": CONNECTIONS,
        "headers": {"User-Agent": USER_AGENT},
        "ssl_context": ssl.create_default_context(),  # made once: it costs milliseconds
    }
    if proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        login = urllib.parse.unquote(urllib3.util.parse_url(proxy).auth or "")
        headers = urllib3.make_headers(proxy_basic_auth=login or None)
        manager = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    manager.pool_classes_by_scheme = {"http": HTTP, "https": HTTPS}
    return manager


def _open_socket(host: str, port: int, seconds: float, options: Sequence[tuple[int, int, int]] | None) -> socket.socket:
    """A TCP connection to one of the addresses of `host`, which share the time. Raises `OSError` of the last, and
    `ValueError` for a name that cannot be one."""
    end = time.monotonic() + seconds
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:ADDRESSES]
    failure = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError as error:  # such as IPv6 on a machine without
            failure = error
            continue
        try:
            for option in options or ():
                opened.setsockopt(*option)
            opened.settimeout(max(MOMENT_S, (end - time.monotonic()) / (len(found) - number)))
            opened.connect(address)
        except OSError as error:
            opened.close()
            failure = error
        else:
            return opened
    raise failure


def proxy_of(url: str) -> str | None:
    """The proxy for `url` that the system or its environment (`https_proxy`, `no_proxy`) sets."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
