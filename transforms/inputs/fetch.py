"""Bytes of an image that a row only names. Called from the decode threads of a worker.

What the row is to blame for is a `RowRejected`; what the network or the store is to blame for a `StorageFailed`.
"""

from __future__ import annotations

import errno
import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from transforms import storage
from transforms.errors import RowRejected, StorageFailed, amount
from transforms.inputs.uris import scheme_of

USER_AGENT = "vqbeam"
WEB_SCHEMES = ("http", "https")
TRY_AGAIN = (408, 429)
URL_CHARS = "%/:=&?~#+!$,;'@()*[]"  # what a URL may hold; anything else in one is meant to be percent-encoded


@dataclass(frozen=True)
class FetchOptions:
    """`max_bytes` bounds one image, wherever its bytes lie; the rest is for web servers (stores retry on their own)."""

    max_bytes: int = 64 << 20
    timeout_s: float = 20.0
    retries: int = 3
    backoff_s: float = 0.5


def fetch_image(uri: str, options: FetchOptions, stop: threading.Event | None = None) -> bytes:
    """The bytes at an absolute path or URI whose scheme was found to be allowed.

    Raises `RowRejected` (image_not_found, fetch_refused, image_too_large) and `StorageFailed`. Setting `stop` cuts
    the waits between tries short.
    """
    if scheme_of(uri) in WEB_SCHEMES:
        return _fetch_web(uri, options, stop or threading.Event())
    try:
        size = storage.stat(uri).size
        if size > options.max_bytes:
            raise too_large(uri, size, options)
        return storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise RowRejected("image_not_found", f"{uri} is not there") from error
    except StorageFailed as error:
        if _is_no_name(error.__cause__):
            raise RowRejected("image_not_found", f"{uri!r} names no file: {error.__cause__}") from error
        raise


def _is_no_name(cause: BaseException | None) -> bool:
    """Whether a store failed because of the name alone: below a file, too long, with a zero byte, no bucket's name."""
    number = getattr(cause, "errno", None)
    return (
        isinstance(cause, (NotADirectoryError, IsADirectoryError, ValueError))
        or number in (errno.ENAMETOOLONG, errno.ELOOP)
        or getattr(cause, "code", None) == HTTPStatus.BAD_REQUEST
    )


def too_large(uri: str, size: int, options: FetchOptions) -> RowRejected:
    allowed = f"max_image_bytes is {options.max_bytes:,}"
    return RowRejected("image_too_large", f"{uri} has {amount(size, 'bytes')}, {allowed}")


class _SameWeb(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if scheme_of(newurl) not in WEB_SCHEMES:
            raise urllib.error.HTTPError(req.full_url, 403, f"redirected to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_web(uri: str, options: FetchOptions, stop: threading.Event) -> bytes:
    opener = urllib.request.build_opener(_SameWeb)
    failure = ""
    for attempt in range(options.retries + 1):
        if attempt and stop.wait(options.backoff_s * 2 ** (attempt - 1)):
            break
        try:
            request = urllib.request.Request(
                urllib.parse.quote(uri, safe=URL_CHARS), headers={"User-Agent": USER_AGENT}
            )
            with opener.open(request, timeout=options.timeout_s) as response:
                return _read_within(response, uri, options)
        except urllib.error.HTTPError as error:
            error.close()
            if 300 <= error.code < 500 and error.code not in TRY_AGAIN:  # 3xx: a redirect that leads nowhere good
                raise RowRejected("fetch_refused", f"{uri}: {error.code} {error.reason}") from error
            failure = f"{error.code} {error.reason}"
        except (ValueError, http.client.InvalidURL) as error:  # no URI at all, such as a port that is no number
            raise RowRejected("image_not_found", f"{uri!r}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            failure = f"{type(error).__name__}: {error}"
    raise StorageFailed(f"cannot fetch {uri} after {options.retries + 1} tries: {failure}")


def _read_within(response: Any, uri: str, options: FetchOptions) -> bytes:
    """The body; a server that trickles for longer than the timeout in all is as good as silent."""
    deadline = time.monotonic() + options.timeout_s
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        parts.append(chunk)
        size += len(chunk)
        if size > options.max_bytes:
            raise too_large(uri, size, options)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{amount(size, 'bytes')} in {options.timeout_s:g} s, and not done")
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and int(expected) != size:
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return b"".join(parts)
