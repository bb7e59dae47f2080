"""Bytes of an image that a row only names. Called from the decode threads of a worker.

A fault of the row is a `RowRejected`; one of the network or the store is a `StorageFailed`, which `rejecting` makes a
`RowRejected` unless it is one of the dataset's own stores. Web fetches are bounded in bytes, redirects and time.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from transforms import storage
from transforms.errors import RowRejected, ShardFailed, StorageFailed, UsageError, amount
from transforms.inputs.uris import WEB_SCHEMES, brief, scheme_of, spellings, store_of

if TYPE_CHECKING:  # else only where something is fetched: `vqbeam encode --help` imports this module
    import urllib3

MAX_IMAGE_BYTES = 64 << 20  # of one image, unless the user allows more
USER_AGENT = "vqbeam"
TIMEOUT_S = 20.0  # without a sign of the server
TRY_S = 60.0  # of a try: connecting, redirects, headers and body
ROW_S = 180.0  # of all tries and the waits between them
RETRIES = 3  # of web servers: stores retry on their own
BACKOFF_S = 0.5  # before the first of them
TRY_AGAIN = (408, 429)
LONGEST_WAIT_S = 60.0  # that a server may ask for before the next try
REDIRECTS = 10
HOSTS, CONNECTIONS = 64, 64  # to how many hosts connections stay open, and how many to each
URL_CHARS = "%/:=&?~#+!$,;'@()*[]"  # what a URL may hold; anything else in one is meant to be percent-encoded


def fetch_image(uri: str, max_bytes: int, stop: threading.Event | None = None) -> bytes:
    """The bytes at an absolute path or URI, whose scheme has been checked to be allowed.

    Raises `RowRejected` (image_not_found, fetch_refused, image_too_large) and `StorageFailed`. Setting `stop` cuts
    the waits between tries short.
    """
    if scheme_of(uri) in WEB_SCHEMES:
        return _fetch_web(uri, max_bytes, stop or threading.Event())
    try:
        uri, size = _found(uri)
        limit = max_bytes + 1 if storage.is_local(uri) else None  # a file may grow, and those in /proc have no size
        data = b"" if size > max_bytes else storage.read_bytes(uri, limit)
    except storage.SpecialFile as error:
        raise RowRejected("image_not_found", str(error)) from error
    except FileNotFoundError as error:
        raise RowRejected("image_not_found", f"{uri} is not there") from error
    except UsageError as error:  # a URI that its scheme has no use for, such as one without a bucket
        raise RowRejected("image_not_found", str(error)) from error
    except StorageFailed as error:
        if _is_no_name(error.__cause__):
            raise RowRejected("image_not_found", f"{uri!r} names no file: {error.__cause__}") from error
        raise
    if max(size, len(data)) > max_bytes:
        raise too_large(uri, max(size, len(data)), max_bytes)
    return data


def rejecting(fetch: Callable[[str], bytes], own_stores: Collection[str]) -> Callable[[str], bytes]:
    """`fetch`, but a store or server that fails costs the row ("fetch_failed"), unless it is one of `own_stores`.

    Those are the stores (`uris.store_of`) of the dataset itself: when they fail, no row is to blame.
    """

    def fetch_or_reject(uri: str) -> bytes:
        try:
            return fetch(uri)
        except StorageFailed as error:
            if store_of(uri) in own_stores:
                raise
            raise RowRejected("fetch_failed", str(error)) from error

    return fetch_or_reject


def _found(uri: str) -> tuple[str, int]:
    """The URI, or if it leads nowhere its name in another Unicode normalisation, and the size of what is there. Raises
    `FileNotFoundError`."""
    try:
        return uri, storage.stat(uri).size
    except FileNotFoundError:
        for other in () if uri.isascii() else spellings(uri):
            try:
                return other, storage.stat(other).size
            except FileNotFoundError:
                continue
        raise


def _is_no_name(cause: BaseException | None) -> bool:
    """Whether a store failed because of the name alone: below a file, too long, with a zero byte, no bucket's name."""
    number = getattr(cause, "errno", None)
    return (
        isinstance(cause, (NotADirectoryError, IsADirectoryError, ValueError))
        or number in (errno.ENAMETOOLONG, errno.ELOOP)
        or getattr(cause, "code", None) == HTTPStatus.BAD_REQUEST
    )


def too_large(uri: str, size: int, max_bytes: int) -> RowRejected:
    allowed = f"max_image_bytes is {max_bytes:,}"
    return RowRejected("image_too_large", f"{uri} has {amount(size, 'bytes')}, {allowed}")


def _fetch_web(uri: str, max_bytes: int, stop: threading.Event) -> bytes:
    from urllib3.exceptions import HTTPError, ProxyError, ProxySchemeUnknown

    end = time.monotonic() + ROW_S
    failure, wait, tries = "", 0.0, 0
    while tries <= RETRIES:
        pause = max(wait, BACKOFF_S * 2 ** (tries - 1)) if tries else 0.0
        left = end - time.monotonic() - pause
        if left <= 0 or (tries and stop.wait(pause)):
            break
        tries, wait = tries + 1, 0.0
        try:
            with _time_limit(min(TRY_S, left)) as limit, _answer(uri) as response:
                if response.status < 300:
                    return _read_within(response, uri, max_bytes, limit)
                failure, wait = f"{response.status} {response.reason}", _asked_wait(response)
            if response.status < 500 and response.status not in TRY_AGAIN:  # 3xx: a redirect without a target
                raise RowRejected("fetch_refused", f"{uri}: {failure}")
        except (ProxyError, ProxySchemeUnknown) as error:  # the user's own: no row is to blame
            raise ShardFailed(f"cannot fetch {uri}: {error}") from error
        except ValueError as error:  # no URI at all, such as a port that is no number
            raise RowRejected("image_not_found", f"{uri!r}: {error}") from error
        except (HTTPError, OSError) as error:
            failure = f"TimeoutError: {limit}" if limit.reached else f"{type(error).__name__}: {error}"
    raise StorageFailed(f"cannot fetch {uri} after {tries} {'try' if tries == 1 else 'tries'}: {failure}")


class _TimeLimit:
    """Ends the connections of one try when its time is over: a server that sends a byte now and then keeps within every
    timeout of a socket."""

    def __init__(self, seconds: float) -> None:
        self.reached = False
        self._seconds = seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"not done in {self._seconds:g} s"

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
def _time_limit(seconds: float) -> Iterator[_TimeLimit]:
    limit = _TRY.limit = _TimeLimit(seconds)
    timer = threading.Timer(seconds, limit.reach)
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
        limit.close()


def _answer(uri: str) -> urllib3.BaseHTTPResponse:
    """The answer of a web server, after redirects. Raises `RowRejected`, `ValueError`, `HTTPError`, and `OSError`."""
    url = urllib.parse.quote(uri, safe=URL_CHARS)
    for _ in range(REDIRECTS + 1):
        response = _connections(_proxy(url)).request(
            "GET", url, timeout=TIMEOUT_S, retries=False, preload_content=False, decode_content=False
        )
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        location = urllib.parse.quote(location, safe=URL_CHARS, encoding="iso-8859-1")  # as headers are decoded
        url = urllib.parse.urljoin(url, location)
        if scheme_of(url) not in WEB_SCHEMES:
            raise RowRejected(
                "fetch_refused", f"{uri}: {response.status} redirected to {brief(url)}, which is not http or https"
            )
    raise RowRejected("fetch_refused", f"{uri}: {response.status} after {REDIRECTS} redirects")


@cache
def _connections(proxy: str | None) -> urllib3.PoolManager:
    """The connections of this process that stay open, direct ones or through a proxy, each within its try's limit."""
    import urllib3

    class Limited:
        """A connection whose answers, be it kept open from an earlier try, are within the limit."""

        sock: socket.socket

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


def _proxy(url: str) -> str | None:
    """The proxy for `url` that the system or its environment (`https_proxy`, `no_proxy`) sets."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _asked_wait(response: urllib3.BaseHTTPResponse) -> float:
    """Seconds that the server asks to wait (`Retry-After`), within reason."""
    import urllib3

    try:
        return min(urllib3.Retry().get_retry_after(response) or 0.0, LONGEST_WAIT_S)
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _read_within(response: urllib3.BaseHTTPResponse, uri: str, max_bytes: int, limit: _TimeLimit) -> bytes:
    """The body. Raises `TimeoutError` if its end may be that of the try's time."""
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise too_large(uri, size, max_bytes)
    if limit.reached:
        raise TimeoutError
    return b"".join(parts)
