"""A proxy before the emulated store of `gcs_bucket` that answers some requests with errors."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.web_server import QuietHandler, WebServer

OBJECT_NAME = re.compile(rb'"name": ?"([^"]*)"')


@dataclass(frozen=True)
class Request:
    """`path` is unquoted; `body` begins with the name of an object that is uploaded."""

    method: str
    path: str
    body: bytes

    def uploads(self, name: str) -> bool:
        if self.method != "POST" or "/upload/" not in self.path:
            return False
        stated = OBJECT_NAME.search(self.body)
        return name in self.path or (stated is not None and name.encode() in stated.group(1))

    def reads(self, name: str) -> bool:
        return self.method == "GET" and name in self.path and "alt=media" in self.path


@dataclass(frozen=True)
class Answer:
    """The client's answer; with `delivered` the store sees the request all the same."""

    status: int
    message: str = "the store is out of sorts"
    delivered: bool = False


Rule = Callable[[Request], Answer | None]


class FaultyStore(WebServer):
    """Hands requests on to `upstream` ("host:port") unless `rule` has an answer; `asked` counts its answers."""

    def __init__(self, upstream: str) -> None:
        super().__init__(_Proxy)
        self.upstream = upstream
        self.rule: Rule = lambda request: None
        self.asked = 0


class _Proxy(QuietHandler):
    server: FaultyStore
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.rule(Request(self.command, urllib.parse.unquote(self.path), body))
        if answer is not None:
            self.server.asked += 1
        if answer is None or answer.delivered:
            status, headers, content = self._forward(body)
        if answer is not None:
            status, headers = answer.status, {"Content-Type": "application/json"}
            content = json.dumps({"error": {"code": status, "message": answer.message}}).encode()
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), content
