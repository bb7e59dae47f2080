"""Faults of the environment fail shards, not rows: exit code 1, the reason on the screen, and a rerun does the rest."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.make_inputs import GOOD, files, image_table
from tests.support.run_command import Outcome, encode, run
from tests.support.web_server import QuietHandler, WebServer


def three_files(folder: Path) -> Path:
    files({f"in/{name}.parquet": image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]) for name in "abc"})(folder)
    return folder / "in"


def failures(result: Outcome) -> list[tuple[int, str]]:
    return [(shard, reason) for shard, reason in result.last_run()["failed"]]


def check_only_shard_failed(result: Outcome, shard: int, *reason: str, advised: bool = False) -> None:
    """Shard `shard` failed for `reason`, is named on the screen, and rejected no row. `advised`: the reason says what
    to do."""
    assert result.code == 1
    ((failed, why),) = failures(result)
    assert failed == shard
    for part in reason:
        assert part in why
        assert part in result.out
    assert ("run the same command again" in result.out) is not advised
    assert result.rejected() == []
    assert not result.files("_SUCCESS")
    assert f"data/{shard:05d}.parquet" not in result.files("data/*")
    result.check_nothing_lost()


def test_a_job_is_done_even_if_the_account_of_its_last_run_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    source = three_files(tmp_path)
    in_the_way = tmp_path / "out" / "_vqbeam" / "last_run.json"
    in_the_way.mkdir(parents=True)
    result = encode(source, tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    assert "warning: the account of this run could not be written" in result.err
    assert "Traceback" not in result.err
    assert result.files("_SUCCESS")
    in_the_way.rmdir()
    again = encode(source, tmp_path / "out", tiny_model)
    assert (again.code, again.total("rows_written")) == (0, 6)


def test_a_full_disk_fails_the_shard_and_the_rerun_completes_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = three_files(tmp_path)
    link = os.link

    def link_unless_full(src: str | Path, dst: str | Path) -> None:
        if str(dst).endswith("data/00001.parquet"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(dst))
        link(src, dst)

    monkeypatch.setattr(os, "link", link_unless_full)
    result = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "2")
    check_only_shard_failed(result, 1, "cannot write", "No space left on device")
    assert len(result.rows()) == 4

    monkeypatch.undo()
    again = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "2")
    assert again.code == 0, again.err
    assert "2 of 3 shards done already" in again.err
    assert [row["key"] for row in again.rows()] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert run("verify", tmp_path / "out").code == 0
    assert not list((tmp_path / "out").rglob(".vqbeam*"))


def test_a_file_that_cannot_be_read_fails_its_shard(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "in"
    files({"a.jpg": GOOD, "c.jpg": GOOD})(source)
    (source / "b.jpg").symlink_to("/proc/self/mem")  # cannot be read through, not even by root

    result = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "1")
    check_only_shard_failed(result, 1, "cannot read", "b.jpg", "OSError")

    assert [row["key"] for row in result.rows()] == ["a", "c"]


def test_a_link_that_leads_nowhere_is_passed_over_and_one_to_a_file_is_read(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "in"
    files({"a.jpg": GOOD, "c.jpg": GOOD})(source)
    (source / "b.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (source / "d.jpg").symlink_to(source / "a.jpg")

    result = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "1")
    assert result.code == 0
    assert "passed over: 1 broken link" in result.err

    assert [row["key"] for row in result.rows()] == ["a", "c", "d"]


def test_a_source_that_changed_after_planning_fails_its_shard(tmp_path: Path, tiny_model: Path) -> None:
    source = three_files(tmp_path)
    (source / "b.parquet").rename(tmp_path / "kept")
    (source / "b.parquet").symlink_to(tmp_path / "kept")
    first = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "2", "--limit", "6")
    assert first.code == 0, first.err
    for path in ("_vqbeam/stats/00001.json", "data/00001.parquet", "_SUCCESS"):
        (tmp_path / "out" / path).unlink()
    (tmp_path / "kept").write_bytes(image_table([GOOD], key=["other"]))

    changed = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "2", "--limit", "6")
    check_only_shard_failed(changed, 1, "b.parquet changed since the plan was made", advised=True)

    (tmp_path / "kept").unlink()
    gone = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "2", "--limit", "6")
    check_only_shard_failed(gone, 1, "b.parquet", "gone", advised=True)


def test_a_run_that_writes_nothing_fails(tmp_path: Path, tiny_model: Path) -> None:
    files({"in/a.parquet": image_table([])})(tmp_path)
    result = encode(tmp_path / "in", tmp_path / "out", tiny_model)
    assert result.code == 1
    assert "nothing was written" in result.out
    assert result.rows() == []
    assert not result.files("_SUCCESS")


def test_too_many_rejected_rows_fail_the_run_but_keep_the_good_ones(tmp_path: Path, tiny_model: Path) -> None:
    files({"in/a.jpg": GOOD, "in/b.jpg": b"", "in/c.jpg": GOOD})(tmp_path)

    result = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--max_error_rate", "0.3")
    assert result.code == 1
    assert "rejected 1 of 3 rows (33.3%), more than --max_error_rate 0.3" in result.out
    assert [row["key"] for row in result.rows()] == ["a", "c"]
    assert not result.files("_SUCCESS")

    tolerant = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--max_error_rate", "0.5")
    assert tolerant.code == 0, tolerant.out
    assert tolerant.files("_SUCCESS")


def test_retry_rejected_does_again_what_was_mended(tmp_path: Path, tiny_model: Path) -> None:
    files({"list.csv": "key,file_name\na,a.jpg\nb,b.jpg\n", "a.jpg": GOOD})(tmp_path)
    table, out = tmp_path / "list.csv", tmp_path / "out"
    first = encode(table, out, tiny_model)
    assert [row["error"] for row in first.rejected()] == ["image_not_found"]

    (tmp_path / "b.jpg").write_bytes(GOOD)
    second = encode(table, out, tiny_model, "--retry_rejected")

    assert second.code == 0, second.err
    assert "Doing 1 shard that rejected rows again" in second.err
    assert [row["key"] for row in second.rows()] == ["a", "b"]
    assert second.rejected() == []
    assert run("verify", out).code == 0


class ImageServer(WebServer):
    """Answers `/good.jpg`; `/404`, `/410`, `/403`, `/500` with that status; `/mending` with 503 the first two times."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.failures_left = 2
        self.broken = True


class _Answer(QuietHandler):
    server: ImageServer

    def do_GET(self) -> None:
        name = self.path.strip("/")
        status = int(name) if name.isdigit() else 200
        if name == "mending" and self.server.failures_left:
            self.server.failures_left -= 1
            status = 503
        if name == "500" and not self.server.broken:
            status = 200
        body = GOOD if status == 200 else b"<html>no</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.inputs.fetch.BACKOFF_S", 0.01)


def test_web_addresses_that_are_refused_are_rejected_rows(
    tmp_path: Path, tiny_model: Path, quick_retries: None
) -> None:
    with ImageServer() as server:
        paths = ("good.jpg", "404", "410", "403", "mending")
        lines = [f"{path},{server.url}/{path}" for path in paths]
        files({"list.csv": "\n".join(["key,url", *lines])})(tmp_path)
        result = encode(tmp_path / "list.csv", tmp_path / "out", tiny_model, "--uri_schemes", "http")

    assert result.code == 0, result.err
    assert [row["key"] for row in result.rows()] == ["good.jpg", "mending"]
    found = result.rejected()
    assert [(row["error"], row["key"]) for row in found] == [("fetch_refused", path) for path in ("404", "410", "403")]
    assert all(f"/{row['key']}: {row['key']} " in row["message"] for row in found)
    result.check_nothing_lost()


def test_a_web_server_that_keeps_failing_fails_the_shard_until_it_is_mended(
    tmp_path: Path, tiny_model: Path, quick_retries: None
) -> None:
    with ImageServer() as server:
        lines = [f"{number},{server.url}/{name}" for number, name in enumerate(("a.jpg", "500", "b.jpg"))]
        files({"list.csv": "\n".join(["key,url", *lines])})(tmp_path)
        flags = ("--uri_schemes", "http", "--on_fetch_error", "fail", "--rows_per_shard", "1")
        result = encode(tmp_path / "list.csv", tmp_path / "out", tiny_model, *flags)
        check_only_shard_failed(result, 1, "/500", "4 tries", "Internal Server Error")

        server.broken = False
        again = encode(tmp_path / "list.csv", tmp_path / "out", tiny_model, *flags)

    assert again.code == 0, again.err
    assert [row["key"] for row in again.rows()] == ["0", "1", "2"]
