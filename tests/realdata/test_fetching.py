"""URIs in the data: a sick one costs its row, a sick store of the dataset its shard, and none is opened unasked."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from tests.support.run_command import Outcome, encode
from tests.support.web_server import QuietHandler, WebServer
from transforms.inputs import dead_hosts, fetch

ODD = ("a::b.jpg", "http::c.jpg", "d 1.jpg", "e%20f.jpg")


def jpeg(number: int) -> bytes:
    y, x = np.mgrid[0:16, 0:16]
    out = io.BytesIO()
    Image.fromarray(np.stack([x * 16, y * 16, (x + y + 40 * number) % 256], -1).astype("uint8")).save(out, "JPEG")
    return out.getvalue()


class Web(QuietHandler):
    """/good is an image; /429 asks to wait a day; /short ends before its Content-Length; others are a status."""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        body = jpeg(0) if name in ("good", "short", "a::b.jpg") else b""
        self.send_response(200 if body else int(name))
        self.send_header("Content-Length", str(len(body) + 10 * (name == "short")))
        if name == "429":
            self.send_header("Retry-After", "86400")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def web() -> Iterator[str]:
    with WebServer(Web) as server:
        yield server.url


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RETRIES": 1, "BACKOFF_S": 0.001, "LONGEST_WAIT_S": 0.01}.items():
        monkeypatch.setattr(fetch, name, value)


def table(folder: Path, *uris: str) -> Path:
    path = folder / "list.csv"
    path.write_text("key,url\n" + "".join(f"{number},{uri}\n" for number, uri in enumerate(uris)))
    return path


def ends(result: Outcome) -> dict[str, str]:
    """By key: "written", or the error of the rejected row. Every row has one end."""
    result.check_nothing_lost()
    return dict.fromkeys((row["key"] for row in result.rows()), "written") | {
        row["key"]: row["error"] for row in result.rejected()
    }


def test_a_sick_row_is_rejected_with_the_reason_and_the_others_are_written(
    tmp_path: Path, tiny_model: Path, web: str
) -> None:
    uris = (
        f"{web}/good",
        "http://127.0.0.1:1/dead",
        "http://nothing.invalid/dns",
        f"{web}/short",
        f"{web}/429",
        f"{web}/500",
        web.replace("http", "HTTP") + "/good",
        f"{web}/a::b.jpg",
    )
    result = encode(table(tmp_path, *uris), tmp_path / "out", tiny_model, "--uri_schemes", "http")
    assert result.code == 0, result.err
    assert ends(result) == dict.fromkeys("067", "written") | dict.fromkeys("12345", "fetch_failed")
    messages = {row["key"]: row["message"] for row in result.rejected()}
    assert "127.0.0.1:1/dead after 2 tries" in messages["1"]
    assert "nothing.invalid" in messages["2"]
    assert "IncompleteRead" in messages["3"]
    assert "429 Too Many Requests" in messages["4"]
    assert all(len(message) < 600 for message in messages.values())


def test_a_dead_host_costs_its_rows_and_little_time(
    tmp_path: Path, tiny_model: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_hosts, "DEAD_AFTER_S", 0.0)
    monkeypatch.setattr(fetch, "BACKOFF_S", 0.05)
    uris = (f"http://127.0.0.1:1/{number}" if number % 10 else f"{web}/good" for number in range(100))
    flags = ("--uri_schemes", "http", "--max_error_rate", "1")
    result = encode(table(tmp_path, *uris), tmp_path / "out", tiny_model, *flags)
    assert result.code == 0, result.err
    assert ends(result) == {str(n): "fetch_failed" if n % 10 else "written" for n in range(100)}
    messages = [row["message"] for row in result.rejected()]
    left_alone = [message for message in messages if "http://127.0.0.1:1 let nobody connect" in message]
    assert len(left_alone) > 50
    assert all("refused" in message and len(message) < 600 for message in messages)


def test_a_shard_fails_for_a_sick_row_if_that_is_asked_for(tmp_path: Path, tiny_model: Path, web: str) -> None:
    flags = ("--uri_schemes", "http", "--on_fetch_error", "fail")
    result = encode(table(tmp_path, f"{web}/500"), tmp_path / "out", tiny_model, *flags)
    assert result.code == 1
    assert "500 Internal Server Error" in result.out
    assert result.rejected() == []
    other = encode(table(tmp_path, f"{web}/500"), tmp_path / "out", tiny_model, "--uri_schemes", "http")
    assert other.code == 1, "a plan keeps its choice, and an open one agrees with any"
    reject = encode(table(tmp_path, f"{web}/500"), tmp_path / "out", tiny_model, *flags[:-1], "reject")
    assert reject.code == 2
    assert "input.on_fetch_error" in reject.err


class SickFileSystem(MemoryFileSystem):
    """A store of which `sick` buckets list, and do not read."""

    protocol = "sick"
    sick: tuple[str, ...] = ()
    store: dict[str, Any] = {}  # noqa: RUF012 - as MemoryFileSystem has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        path = path.removeprefix("sick://").strip("/")
        return f"/{path}" if path else ""

    def unstrip_protocol(self, name: str) -> str:
        return f"sick://{name.removeprefix('sick://').lstrip('/')}"

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        if path.endswith(".jpg") and self._strip_protocol(path).split("/")[1] in self.sick:
            raise OSError(5, "503 the bucket is down")
        return super().cat_file(path, *args, **options)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    fsspec.register_implementation("sick", SickFileSystem, clobber=True)
    fs = fsspec.filesystem("sick")
    for name in ("own", "other"):
        for number in range(2):
            fs.pipe_file(f"/{name}/{number}.jpg", jpeg(number))
    yield monkeypatch
    fs.store.clear()


@pytest.mark.parametrize(("sick", "code"), [("other", 0), ("own", 1)])
def test_the_datasets_own_bucket_fails_the_shard_and_another_bucket_costs_the_row(
    tmp_path: Path, tiny_model: Path, bucket: pytest.MonkeyPatch, sick: str, code: int
) -> None:
    lines = "key,url\na,0.jpg\nb,sick://own/1.jpg\nc,sick://other/0.jpg\n"
    fsspec.filesystem("sick").pipe_file("/own/list.csv", lines.encode())
    bucket.setattr(SickFileSystem, "sick", (sick,))
    result = encode("sick://own/list.csv", tmp_path / "out", tiny_model)
    assert result.code == code, result.err
    if code:
        assert "503 the bucket is down" in result.out
        assert (result.rows(), result.rejected()) == ([], [])
    else:
        assert ends(result) == {"a": "written", "b": "written", "c": "fetch_failed"}
        assert "503 the bucket is down" in result.rejected()[0]["message"]


def test_names_with_colons_and_percent_signs_are_read(tmp_path: Path, tiny_model: Path) -> None:
    for number, name in enumerate(ODD):
        (tmp_path / name).write_bytes(jpeg(number))
    uris = [*ODD, *((tmp_path / name).as_uri() for name in ODD), f"FILE://{tmp_path}/d 1.jpg"]
    uris += [f"file://localhost{tmp_path}/d%201.jpg", f"file://{tmp_path}/e%20f.jpg"]
    result = encode(table(tmp_path, *uris), tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    codes = [row["encoding"] for row in sorted(result.rows(), key=lambda row: int(row["key"]))]
    assert len(codes) == len(uris)
    assert codes[4:8] == codes[:4]
    assert codes[8:] == [codes[2], codes[2], codes[3]]


def test_odd_names_in_a_folder_are_read(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(ODD):
        (folder / name).write_bytes(jpeg(number))
    result = encode(folder, tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    assert {row["key"] for row in result.rows()} == {name.removesuffix(".jpg") for name in ODD}


def test_nothing_gets_past_the_allowed_schemes(tmp_path: Path, tiny_model: Path, web: str) -> None:
    uris = (
        f"file://{web}/good",
        f"{web}/good",
        "gs://bucket/a.jpg",
        "zip://a.jpg::" + web + "/good.zip",
        f"simplecache::{web}/good",
        "memory://a.jpg",
        "file://elsewhere/a.jpg",
        "../outside.jpg",
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.jpg").write_bytes(jpeg(0))
    result = encode(table(tmp_path / "in", *uris), tmp_path / "out", tiny_model)
    assert ends(result) == dict.fromkeys("0123567", "uri_not_allowed") | {"4": "image_not_found"}
    chain = encode(table(tmp_path / "in", uris[3]), tmp_path / "chain", tiny_model, "--uri_schemes", "zip")
    assert ends(chain) == {"0": "uri_not_allowed"}


def test_a_chain_is_followed_if_each_of_its_schemes_is_allowed(tmp_path: Path, tiny_model: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x.jpg", jpeg(1))
    uris = (f"zip://x.jpg::{tmp_path}/a.zip", "zip://x.jpg")
    result = encode(table(tmp_path, *uris), tmp_path / "out", tiny_model, "--uri_schemes", "zip", "file")
    assert ends(result) == {"0": "written", "1": "image_not_found"}


def test_an_absolute_path_may_lead_anywhere_if_paths_are_allowed(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    result = encode(table(tmp_path / "in", str(tmp_path / "a.jpg")), tmp_path / "out", tiny_model)
    assert ends(result) == {"0": "written"}
    flags = ("--uri_schemes", "https")
    refused = encode(table(tmp_path / "in", str(tmp_path / "a.jpg")), tmp_path / "none", tiny_model, *flags)
    assert ends(refused) == {"0": "uri_not_allowed"}


def test_a_scheme_that_nothing_opens_is_refused_before_there_is_a_plan(tmp_path: Path, tiny_model: Path) -> None:
    result = encode(table(tmp_path, "x://a"), tmp_path / "out", tiny_model, "--uri_schemes", "nonsense")
    result.check_refused("--uri_schemes", "nonsense")


def test_a_scheme_may_be_written_as_people_do(tmp_path: Path, tiny_model: Path, web: str) -> None:
    result = encode(table(tmp_path, f"{web}/good"), tmp_path / "out", tiny_model, "--uri_schemes", "HTTP://")
    assert ends(result) == {"0": "written"}


def test_devices_fifos_and_sockets_named_by_a_row_are_never_opened(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        made.bind("socket.jpg")
        threads = threading.active_count()
        result = encode(
            table(tmp_path, "/dev/zero", "fifo.jpg", "socket.jpg", "good.jpg"), tmp_path / "out", tiny_model
        )
    assert ends(result) == dict.fromkeys("012", "image_not_found") | {"3": "written"}
    told = [row["message"].partition(" is ")[2] for row in result.rejected()]
    assert told == ["a device, and no file", "a FIFO, and no file", "a socket, and no file"]
    assert threading.active_count() < threads + 100  # tests before have left some


def test_a_text_that_is_a_fifo_is_not_opened_and_costs_the_row(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate("ab"):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    (folder / "a.txt").write_text("a cat")
    os.mkfifo(folder / "b.txt")
    os.mkfifo(folder / "c.jpg")
    result = encode(folder, tmp_path / "out", tiny_model)
    assert ends(result) == {"a": "written", "b": "broken_record"}
    assert "b.txt is a FIFO" in result.rejected()[0]["message"]
    assert "passed over: 2 no regular files" in result.out + result.err


def test_a_fifo_or_device_as_the_input_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    for path in (tmp_path / "a.tar", "/dev/zero"):
        encode(path, tmp_path / "out", tiny_model).check_refused(str(path), "FIFO")
    encode(tmp_path / "*.tar", tmp_path / "out", tiny_model).check_refused("no matching files", "1 no regular files")
