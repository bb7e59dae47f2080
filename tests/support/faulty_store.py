"""A proxy before an emulated Google Cloud Storage or S3 that answers some requests with faults."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.support.web_server import QuietHandler, WebServer

OBJECT_NAME = re.compile(rb'"name": ?"([^"]*)"')
GOOGLE = "/storage/v1/"  # in all its paths
HOP = ("host", "connection", "expect")
OWN = ("transfer-encoding", "connection", "content-length", "date", "server")
S3_CODES = {403: "AccessDenied", 409: "ConditionalRequestConflict", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Request:
    """`path` is unquoted; the `body` of an upload to Google Cloud Storage begins with the object's name."""

    method: str
    path: str
    body: bytes

    @property
    def object(self) -> str:
        return self.path.partition("?")[0]

    def uploads(self, name: str = "") -> bool:
        if GOOGLE not in self.path:
            return self.method == "PUT" and name in self.object
        if self.method != "POST" or "/upload/" not in self.path:
            return False
        stated = OBJECT_NAME.search(self.body)
        return name in self.path or (stated is not None and name.encode() in stated.group(1))

    def reads(self, name: str = "") -> bool:
        content = "alt=media" in self.path if GOOGLE in self.path else "list-type" not in self.path
        return self.method == "GET" and content and name in self.object


@dataclass(frozen=True)
class Answer:
    """The client's answer; with `delivered` the store sees the request all the same. `instead` of an error, the
    connection is reset, or the true answer breaks off in its middle."""

    status: int = 503
    message: str = "the store is out of sorts"
    delivered: bool = False
    instead: Literal["", "reset", "cut"] = ""


Rule = Callable[[Request], Answer | None]


class FaultyStore(WebServer):
    """Hands requests on to `upstream` ("host:port") unless `rule` has an answer.

    `asked` counts its answers, and `sent` the bytes that were read of each object.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(_Proxy)
        self.upstream = upstream
        self.rule: Rule = lambda request: None
        self.asked = 0
        self.sent: Counter[str] = Counter()


class _Proxy(QuietHandler):
    server: FaultyStore
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, urllib.parse.unquote(self.path), body)
        answer = self.server.rule(request)
        if answer is not None:
            self.server.asked += 1
        cut = answer is not None and answer.instead == "cut"
        if answer is None or answer.delivered or cut:
            status, headers, content = self._forward(body)
        if answer is not None and answer.instead == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if answer is not None and not cut:
            status, headers, content = self._error(answer, GOOGLE in request.path)
        if request.reads():
            self.server.sent[request.object] += len(content)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in OWN:
                self.send_header(name, value)
        size = headers["Content-Length"] if self.command == "HEAD" and "Content-Length" in headers else len(content)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    @staticmethod
    def _error(answer: Answer, google: bool) -> tuple[int, dict[str, str], bytes]:
        if google:
            told = json.dumps({"error": {"code": answer.status, "message": answer.message}})
            return answer.status, {"Content-Type": "application/json"}, told.encode()
        code = S3_CODES.get(answer.status, str(answer.status))
        told = f"<Error><Code>{code}</Code><Message>{answer.message}</Message></Error>"
        return answer.status, {"Content-Type": "application/xml"}, told.encode()

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), content
