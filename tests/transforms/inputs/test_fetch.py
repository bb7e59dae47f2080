"""Fetching what rows name, against a real web server and real files."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.support.web_server import QuietHandler, WebServer
from transforms.errors import RowRejected, ShardFailed
from transforms.inputs import connections, fetch
from transforms.inputs.dead_hosts import DeadHosts
from transforms.inputs.fetch import fetch_image, rejecting
from transforms.inputs.uris import store_of

BYTES = 1000  # allowed
TARGETS = {
    "/to-ftp": "ftp://127.0.0.1/x",
    "/to-image": "/image",
    "/to-itself": "/to-itself",
    "/to-other": "/to-and-back",
    "/to-and-back": "/to-other",
    "/to-odd": "/a b/\xe4",
    "/to-file": "file:///etc/hostname",
    "/to-data": "data:image/png;base64,AAAA",
    "/to-nonsense": "http://[",
    "/to-far": "http://localhost/" + "x" * 60_000,
    "/to-closed": "http://127.0.0.1:1/x",
}
CHUNKED = {"Transfer-Encoding": "chunked"}
DATE = "Fri, 31 Dec {} 23:59:59 GMT"


class Web(QuietHandler):
    """Answers by the path: /status/N, /busy-once, /wait/S, /late/S, /big, /short, /hang, /trickle, /to-PATH, /image"""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    clients: set[tuple[str, int]]
    release: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.clients.add(self.client_address)
        if self.path.startswith("/status/"):
            self.answer(int(self.path.rpartition("/")[2]), b"")
        elif self.path == "/busy-once" and self.asked.count(self.path) == 1:
            self.answer(503, b"")
        elif self.path.startswith("/wait/") and self.asked.count(self.path) == 1:
            self.answer(503, b"", **{"Retry-After": self.path.rpartition("/")[2]})
        elif self.path.startswith("/late/") and self.asked.count(self.path) == 1:
            self.answer(429, b"", **{"Retry-After": unquote(self.path.rpartition("/")[2])})
        elif self.path == "/big":
            self.answer(200, b"x" * 1001)
        elif self.path == "/short":
            self.answer(200, b"x" * 10, **{"Content-Length": "20"})
            self.close_connection = True
        elif self.path == "/long":
            self.answer(200, b"x" * 10 + b"HTTP/1.1 200 OK\r\n", **{"Content-Length": "10"})
        elif self.path == "/two-lengths":
            self.answer(200, b"x" * 10, **{"Content-Length": "10, 20"})
        elif self.path == "/endless":
            self.answer(200, b"", **{"Content-Length": "nonsense"})
            with suppress(ConnectionError):
                while not self.release.is_set():
                    self.wfile.write(b"x" * 100)
        elif self.path in ("/endless-header", "/endless-chunk", "/endless-status"):
            first = {"r": b"HTTP/1.1 200 OK\r\nX-Y: ", "k": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"}
            with suppress(ConnectionError):
                self.wfile.write(first.get(self.path[-1], b"HTTP/1.1 200 "))
                for _ in range(100):
                    self.wfile.write(b"y" * 100_000)
            self.close_connection = True
        elif self.path == "/chunks":
            self.answer(200, b"4\r\nabcd\r\n2\r\nef\r\n0\r\nT: x\r\n\r\n", **CHUNKED)
        elif self.path == "/huge-chunk":
            self.answer(200, b"fffffffff\r\n" + b"x" * 5000, **CHUNKED)
        elif self.path == "/hang":
            self.release.wait()
        elif self.path == "/trickle":
            self.answer(200, b"", **{"Content-Length": "900"})
            with suppress(ConnectionError):  # the client gives up
                while not self.release.wait(0.05):
                    self.wfile.write(b"x")
        elif self.path == "/slow-headers":
            with suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not self.release.wait(0.05):
                    self.wfile.write(b"X: y\r\n")
        elif self.path == "/many-headers":
            self.answer(200, b"", **{f"X-{number}": "y" for number in range(1000)})
        elif self.path.startswith("/to-"):
            self.answer(302, b"", Location=TARGETS[self.path])
        else:
            self.answer(200, b"bytes of " + self.path.encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        length = {} if "Transfer-Encoding" in headers else {"Content-Length": str(len(body))}
        for name, value in (length | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TIMEOUT_S": 0.5, "TRY_S": 0.6, "RETRIES": 2, "BACKOFF_S": 0.001}.items():
        monkeypatch.setattr(fetch, name, value)


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """The address of a server and the paths that it was asked for."""
    handler = type("Handler", (Web,), {"asked": [], "clients": set(), "release": threading.Event()})
    with WebServer(handler) as server:
        yield server.url, handler.asked
        handler.release.set()


def test_the_bytes_of_a_web_address(web: tuple[str, list[str]]) -> None:
    assert fetch_image(f"{web[0]}/image", BYTES) == b"bytes of /image"
    assert fetch_image(f"{web[0]}/to-image", BYTES) == b"bytes of /image"
    assert fetch_image(f"{web[0]}/to-odd", BYTES) == b"bytes of /a%20b/%E4"
    assert fetch_image(f"{web[0]}/a b/ä.jpg?x=1%20", BYTES) == b"bytes of /a%20b/%C3%A4.jpg?x=1%20"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_rejects_the_row_at_once(web: tuple[str, list[str]], status: int) -> None:
    with pytest.raises(RowRejected, match=f"fetch_refused: .*{status}"):
        fetch_image(f"{web[0]}/status/{status}", BYTES)
    assert len(web[1]) == 1


@pytest.mark.parametrize(("path", "target"), [("ftp", "ftp://127"), ("file", "file:///etc"), ("data", "data:image")])
def test_a_redirect_to_another_scheme_is_refused(web: tuple[str, list[str]], path: str, target: str) -> None:
    with pytest.raises(RowRejected, match=f"fetch_refused: .*redirected to '{target}"):
        fetch_image(f"{web[0]}/to-{path}", BYTES)
    assert len(web[1]) == 1


@pytest.mark.parametrize("path", ["itself", "other"])
def test_a_redirect_without_an_end_is_refused(web: tuple[str, list[str]], path: str) -> None:
    with pytest.raises(RowRejected, match=r"fetch_refused: .*302 after 10 redirects"):
        fetch_image(f"{web[0]}/to-{path}", BYTES)
    assert len(web[1]) == 11


def test_a_redirect_to_no_address_rejects_the_row(web: tuple[str, list[str]]) -> None:
    for path in ("/to-nonsense", "/to-far"):
        with pytest.raises((RowRejected, ShardFailed)) as caught:
            rejecting(partial(fetch_image, max_bytes=BYTES), {"file"})(web[0] + path)
        assert isinstance(caught.value, RowRejected), path
        assert len(str(caught.value)) < 700


def test_connections_stay_open() -> None:
    handler = type("Handler", (Web,), {"asked": [], "clients": set()})
    with WebServer(handler) as server:
        for _ in range(3):
            fetch_image(f"{server.url}/image", BYTES)
    assert len(handler.clients) == 1


def test_the_proxy_of_the_environment_is_asked(web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web[0])
    monkeypatch.setenv("no_proxy", "")
    fetch_image("http://images.invalid/a.jpg", BYTES)
    assert web[1] == ["http://images.invalid/a.jpg"]


def test_too_many_bytes_reject_the_row(web: tuple[str, list[str]]) -> None:
    with pytest.raises(RowRejected, match=r"image_too_large: .*1,001 bytes"):
        fetch_image(f"{web[0]}/big", BYTES)


def test_a_server_that_is_busy_once_is_asked_again(web: tuple[str, list[str]]) -> None:
    assert fetch_image(f"{web[0]}/busy-once", BYTES) == b"bytes of /busy-once"
    assert len(web[1]) == 2


class Waits(threading.Event):
    """Never set; remembers how long it was waited for."""

    seconds: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds = timeout
        return False


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("3600", 60), ("soon", 0.001)])
def test_a_server_that_asks_for_time_gets_it_within_reason(
    web: tuple[str, list[str]], asked: str, seconds: float
) -> None:
    waits = Waits()
    assert fetch_image(f"{web[0]}/wait/{asked}", BYTES, waits)
    assert waits.seconds == seconds


@pytest.mark.parametrize("year", [1971, 2999, 10**9, 10**12, 10**30])
def test_a_server_may_ask_for_time_by_a_date(web: tuple[str, list[str]], year: int) -> None:
    waits = Waits()
    assert fetch_image(f"{web[0]}/late/{quote(DATE.format(year))}", BYTES, waits)
    assert waits.seconds == (60 if year == 2999 else 0.001)


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("9" * 400, 60), ("9" * 5000, 0.001), ("-5", 0.001)])
def test_a_server_that_has_too_many_requests_is_given_time(
    web: tuple[str, list[str]], asked: str, seconds: float
) -> None:
    waits = Waits()
    assert fetch_image(f"{web[0]}/late/{asked}", 10 * BYTES, waits)
    assert waits.seconds == seconds


@pytest.mark.parametrize(
    "path",
    ["/status/500", "/status/503", "/status/429", "/short", "/two-lengths", "/hang", "/trickle", "/slow-headers"],
)
def test_a_server_that_stays_ill_is_a_fault_of_the_environment(web: tuple[str, list[str]], path: str) -> None:
    with pytest.raises(ShardFailed, match=f"cannot fetch {web[0]}{path} after 3 tries"):
        fetch_image(web[0] + path, BYTES)
    assert web[1] == [path] * 3


def test_a_handshake_that_trickles_has_an_end() -> None:
    """A record of 16 kB of TLS is announced, and comes by the byte."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def trickle() -> int:
            ends = 0
            while ends < 3:
                client = server.accept()[0]
                with client, suppress(ConnectionError):
                    client.sendall(b"\x16\x03\x03\x40\x00")
                    while True:
                        client.sendall(b"\x02")
                        client.settimeout(0.05)
                        with suppress(TimeoutError):
                            while client.recv(1 << 16):
                                pass
                            break
                ends += 1
            return ends

        trickled = pool.submit(trickle)
        with pytest.raises(ShardFailed, match=r"after 3 tries: \w*Timeout"):
            fetch_image(f"https://127.0.0.1:{server.getsockname()[1]}/x", BYTES)
        assert trickled.result(10) == 3


def test_a_row_has_an_end_however_many_tries_are_left(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ROW_S", 0.3)
    monkeypatch.setattr(fetch, "BACKOFF_S", 3600)
    with pytest.raises(ShardFailed, match=r"after 1 try: 500"):
        fetch_image(f"{web[0]}/status/500", BYTES)


def test_headers_without_an_end_are_a_failure(web: tuple[str, list[str]]) -> None:
    with pytest.raises(ShardFailed, match=r"after 3 tries: ProtocolError: .*100 headers"):
        fetch_image(f"{web[0]}/many-headers", BYTES)


@pytest.mark.parametrize("path", ["/endless-header", "/endless-chunk", "/endless-status"])
def test_a_line_without_an_end_is_a_failure_and_is_not_read(web: tuple[str, list[str]], path: str) -> None:
    """The server would send 10 MB."""
    with pytest.raises(ShardFailed, match=r"after 3 tries: ProtocolError: ") as caught:
        fetch_image(web[0] + path, BYTES)
    assert len(str(caught.value)) < 1000


def test_bodies_end_where_the_server_says_and_never_beyond_the_limit(web: tuple[str, list[str]]) -> None:
    assert fetch_image(f"{web[0]}/long", BYTES) == b"x" * 10
    assert fetch_image(f"{web[0]}/image", BYTES) == b"bytes of /image", "what came too much is no answer to this"
    assert fetch_image(f"{web[0]}/chunks", BYTES) == b"abcdef"
    for path in ("/endless", "/huge-chunk"):
        with pytest.raises(RowRejected, match="image_too_large"):
            fetch_image(web[0] + path, BYTES)


def test_a_failure_costs_the_row_unless_the_store_is_the_datasets_own(web: tuple[str, list[str]]) -> None:
    fetching = partial(fetch_image, max_bytes=BYTES)
    with pytest.raises(RowRejected, match=r"fetch_failed: .*after 3 tries: 500"):
        rejecting(fetching, {"file", "http://elsewhere"})(f"{web[0]}/status/500")
    with pytest.raises(ShardFailed, match="after 3 tries: 500"):
        rejecting(fetching, {store_of(web[0])})(f"{web[0]}/status/500")


def test_a_proxy_that_does_not_work_is_no_fault_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ShardFailed, match="proxy"):
        rejecting(partial(fetch_image, max_bytes=BYTES), {"file"})("http://images.invalid/a.jpg")


@pytest.fixture
def silent_address() -> Iterator[tuple[str, int]]:
    """An address that does not take connections and does not refuse them: its queue is full."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


def resolving(addresses: list[tuple[str, int]]) -> Any:
    """`socket.getaddrinfo` that finds these for any host."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return lambda *name, **options: [(*kind, address) for address in addresses]


def test_the_addresses_of_a_host_share_the_time_for_connecting(
    silent_address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setattr(connections.socket, "getaddrinfo", resolving([silent_address] * 100))
    start = time.monotonic()
    with pytest.raises(ShardFailed, match=r"after 1 try: ConnectTimeoutError: .*connecting to images\.invalid"):
        fetch_image("http://images.invalid/x", BYTES)
    assert time.monotonic() - start < 5


def test_an_address_that_answers_is_found_behind_silent_ones(
    web: tuple[str, list[str]], silent_address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = ("127.0.0.1", int(web[0].rpartition(":")[2]))
    monkeypatch.setattr(connections.socket, "getaddrinfo", resolving([silent_address, ("127.0.0.1", 1), alive]))
    assert fetch_image("http://images.invalid/x", BYTES) == b"bytes of /x"


def test_a_try_ends_in_time_though_each_redirect_has_its_own_connection(
    web: tuple[str, list[str]], silent_address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setattr(fetch, "TIMEOUT_S", 30)
    monkeypatch.setitem(TARGETS, "/to-silent", f"http://127.0.0.1:{silent_address[1]}/")
    start = time.monotonic()
    with pytest.raises(ShardFailed, match="after 1 try"):
        fetch_image(f"{web[0]}/to-silent", BYTES)
    assert time.monotonic() - start < 10


def test_a_host_that_is_known_to_be_dead_is_not_asked(web: tuple[str, list[str]]) -> None:
    clock = [0.0]
    dead_hosts = DeadHosts(lambda: clock[0])
    fetching = rejecting(partial(fetch_image, max_bytes=BYTES), {"file"}, dead_hosts)
    with pytest.raises(RowRejected, match=r"fetch_failed: .* after 3 tries: NewConnectionError"):
        fetching("http://127.0.0.1:1/a")
    clock[0] = 10
    told = (
        r"http://127\.0\.0\.1:1 let nobody connect, 4 times in a row, .* for 10 s\. Last: NewConnectionError.*refused"
    )
    for uri in ("http://127.0.0.1:1/b", "http://127.0.0.1:1/c", f"{web[0]}/to-closed"):
        with pytest.raises(RowRejected, match=f"fetch_failed: .*{told}"):
            fetching(uri)
    assert web[1] == ["/to-closed"]
    assert fetching(f"{web[0]}/image")
    with pytest.raises(ShardFailed, match="after 3 tries"):
        rejecting(partial(fetch_image, max_bytes=BYTES), {"http://127.0.0.1:1"}, dead_hosts)("http://127.0.0.1:1/d")


def test_answers_of_any_kind_are_no_sign_of_a_dead_host(web: tuple[str, list[str]]) -> None:
    clock = iter(range(0, 10_000, 100))
    fetching = rejecting(partial(fetch_image, max_bytes=BYTES), {"file"}, DeadHosts(lambda: float(next(clock))))
    for path in ("/status/500", "/short", "/hang", "/status/404"):
        with pytest.raises(RowRejected, match="fetch_"):
            fetching(web[0] + path)
    assert fetching(f"{web[0]}/image")


def test_nobody_listening_is_a_fault_of_the_environment(web: tuple[str, list[str]]) -> None:
    with pytest.raises(ShardFailed, match="after 3 tries"):
        fetch_image("http://127.0.0.1:1/x.jpg", BYTES)


def test_an_address_that_is_none_rejects_the_row() -> None:
    with pytest.raises(RowRejected, match="image_not_found"):
        fetch_image("http://host:port/x.jpg", BYTES)


def test_a_stop_ends_the_waiting_between_tries(web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", 3600)
    stop = threading.Event()
    stop.set()
    with pytest.raises(ShardFailed):
        fetch_image(f"{web[0]}/status/500", BYTES, stop)
    assert len(web[1]) == 1


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    (tmp_path / "big.jpg").write_bytes(b"x" * 1001)
    assert fetch_image(str(tmp_path / "a.jpg"), BYTES) == b"abc"
    for name in ("gone.jpg", "a.jpg/x.jpg", "", "x" * 300, "a\0b", "\ud800"):
        with pytest.raises(RowRejected, match="image_not_found"):
            fetch_image(str(tmp_path / name), BYTES)
    with pytest.raises(RowRejected, match="image_too_large"):
        fetch_image(str(tmp_path / "big.jpg"), BYTES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    (tmp_path / "a.jpg").chmod(0)
    with pytest.raises(ShardFailed, match=r"a\.jpg"):
        fetch_image(str(tmp_path / "a.jpg"), BYTES)
