"""Bytes of an image that a row only names. Called from the decode threads of a worker.

A fault of the row is a `RowRejected`; one of the network or the store is a `StorageFailed`, which `rejecting` makes a
`RowRejected` unless it is one of the dataset's own stores. Web fetches are bounded in bytes, redirects and time.
"""

from __future__ import annotations

import errno
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import TYPE_CHECKING

from transforms import storage
from transforms.errors import RowRejected, ShardFailed, StorageFailed, UsageError, amount
from transforms.inputs.connections import TimeLimit, connections, proxy_of, time_limit
from transforms.inputs.dead_hosts import DeadHosts
from transforms.inputs.uris import WEB_SCHEMES, brief, scheme_of, spellings, store_of

if TYPE_CHECKING:  # else only where something is fetched: `vqbeam encode --help` imports this module
    import urllib3

MAX_IMAGE_BYTES = 64 << 20  # of one image, unless the user allows more
TIMEOUT_S = 20.0  # without a sign of the server
TRY_S = 60.0  # of a try: connecting, redirects, headers and body
ROW_S = 180.0  # of all tries and the waits between them
RETRIES = 3  # of web servers: stores retry on their own
BACKOFF_S = 0.5  # before the first of them
TRY_AGAIN = (408, 429)
LONGEST_WAIT_S = 60.0  # that a server may ask for before the next try
REDIRECTS = 10
URL_CHARS = "%/:=&?~#+!$,;'@()*[]"  # what a URL may hold; anything else in one is meant to be percent-encoded


def fetch_image(
    uri: str, max_bytes: int, stop: threading.Event | None = None, dead_hosts: DeadHosts | None = None
) -> bytes:
    """The bytes at an absolute path or URI, whose scheme has been checked to be allowed.

    Raises `RowRejected` (image_not_found, fetch_refused, image_too_large) and `StorageFailed`. Setting `stop` cuts
    the waits between tries short. `dead_hosts` are not tried, and kept.
    """
    if scheme_of(uri) in WEB_SCHEMES:
        return _fetch_web(uri, max_bytes, stop or threading.Event(), dead_hosts)
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


def rejecting(
    fetch: Callable[..., bytes], own_stores: Collection[str], dead_hosts: DeadHosts | None = None
) -> Callable[[str], bytes]:
    """`fetch`, but a store or server that fails costs the row ("fetch_failed"), unless it is one of `own_stores`.

    Those are the stores (`uris.store_of`) of the dataset itself: when they fail, no row is to blame. Nor are they ever
    left alone as `dead_hosts` are, since the first row that failed would then fail the shards that follow.
    """

    def fetch_or_reject(uri: str) -> bytes:
        if store_of(uri) in own_stores:
            return fetch(uri)
        try:
            return fetch(uri, dead_hosts=dead_hosts)
        except StorageFailed as error:
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


def _fetch_web(uri: str, max_bytes: int, stop: threading.Event, dead_hosts: DeadHosts | None) -> bytes:
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
            with time_limit(min(TRY_S, left)) as limit, _answer(uri, limit, dead_hosts) as response:
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


def _answer(uri: str, limit: TimeLimit, dead_hosts: DeadHosts | None) -> urllib3.BaseHTTPResponse:
    """The answer of a web server, after redirects. Raises `RowRejected`, `StorageFailed` for one of `dead_hosts`,
    `ValueError`, `HTTPError`, and `OSError`."""
    url = urllib.parse.quote(uri, safe=URL_CHARS)
    for _ in range(REDIRECTS + 1):
        response = _asked(url, limit, dead_hosts)
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


def _asked(url: str, limit: TimeLimit, dead_hosts: DeadHosts | None) -> urllib3.BaseHTTPResponse:
    from urllib3.exceptions import HTTPError, ProxyError

    if dead_hosts:
        dead_hosts.require_alive(url)
    try:
        response = connections(proxy_of(url)).request(
            "GET", url, timeout=TIMEOUT_S, retries=False, preload_content=False, decode_content=False
        )
    except ProxyError:
        raise
    except (HTTPError, OSError) as error:
        if dead_hosts and limit.connecting:
            dead_hosts.failed(url, f"{type(error).__name__}: {error}")
        elif dead_hosts:
            dead_hosts.connected(url)
        raise
    if dead_hosts:
        dead_hosts.connected(url)
    return response


def _asked_wait(response: urllib3.BaseHTTPResponse) -> float:
    """Seconds that the server asks to wait (`Retry-After`), within reason."""
    import urllib3

    try:
        return min(urllib3.Retry().get_retry_after(response) or 0.0, LONGEST_WAIT_S)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # the latter two for numbers without sense
        return 0.0


def _read_within(response: urllib3.BaseHTTPResponse, uri: str, max_bytes: int, limit: TimeLimit) -> bytes:
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
