"""Bytes of an image that a row only names. Called from the decode threads of a worker.

A fault of the row is a `RowRejected`; one of the network or the store is a `StorageFailed`.
"""

from __future__ import annotations

import errno
import ssl
import threading
import time
import urllib.parse
import urllib.request
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from transforms import storage
from transforms.errors import RowRejected, StorageFailed, amount
from transforms.inputs.uris import scheme_of, spellings

if TYPE_CHECKING:  # else only where something is fetched: `vqbeam encode --help` imports this module
    import urllib3

MAX_IMAGE_BYTES = 64 << 20  # of one image, unless the user allows more
USER_AGENT = "vqbeam"
WEB_SCHEMES = ("http", "https")
TIMEOUT_S = 20.0  # of a try
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
        if size > max_bytes:
            raise too_large(uri, size, max_bytes)
        return storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise RowRejected("image_not_found", f"{uri} is not there") from error
    except StorageFailed as error:
        if _is_no_name(error.__cause__):
            raise RowRejected("image_not_found", f"{uri!r} names no file: {error.__cause__}") from error
        raise


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
    from urllib3.exceptions import HTTPError, ProxySchemeUnknown

    failure, wait = "", 0.0
    for attempt in range(RETRIES + 1):
        if attempt and stop.wait(max(wait, BACKOFF_S * 2 ** (attempt - 1))):
            break
        try:
            with _answer(uri) as response:
                if response.status < 300:
                    return _read_within(response, uri, max_bytes)
                failure, wait = f"{response.status} {response.reason}", _asked_wait(response)
            if response.status < 500 and response.status not in TRY_AGAIN:  # 3xx: a redirect without a target
                raise RowRejected("fetch_refused", f"{uri}: {failure}")
        except ProxySchemeUnknown as error:
            raise StorageFailed(f"cannot fetch {uri}: {error}") from error
        except ValueError as error:  # no URI at all, such as a port that is no number
            raise RowRejected("image_not_found", f"{uri!r}: {error}") from error
        except (HTTPError, OSError) as error:
            failure, wait = f"{type(error).__name__}: {error}", 0.0
    raise StorageFailed(f"cannot fetch {uri} after {RETRIES + 1} tries: {failure}")


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
            raise RowRejected("fetch_refused", f"{uri}: 403 redirected to {url}")
    raise RowRejected("fetch_refused", f"{uri}: {response.status} after {REDIRECTS} redirects")


@cache
def _connections(proxy: str | None) -> urllib3.PoolManager:
    """The connections of this process that stay open, direct ones or through a proxy."""
    import urllib3

    options: dict[str, Any] = {
        "num_pools": HOSTS,
        "maxsize": CONNECTIONS,
        "headers": {"User-Agent": USER_AGENT},
        "ssl_context": ssl.create_default_context(),  # made once: it costs milliseconds
    }
    if proxy is None:
        return urllib3.PoolManager(**options)
    login = urllib.parse.unquote(urllib3.util.parse_url(proxy).auth or "")
    return urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=login or None), **options)


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


def _read_within(response: urllib3.BaseHTTPResponse, uri: str, max_bytes: int) -> bytes:
    """The body. Raises `TimeoutError` for a server that trickles for longer than the timeout in all."""
    deadline = time.monotonic() + TIMEOUT_S
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise too_large(uri, size, max_bytes)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{amount(size, 'bytes')} in {TIMEOUT_S:g} s, and not done")
    return b"".join(parts)
