"""Files are put whole or not at all, and a store that fails is not a file that is missing."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from transforms import storage
from transforms.errors import ShardFailed, UsageError


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else storage.absolute(f"memory://{tmp_path.name}/store")


def raising(error: BaseException):
    def call(*args: object, **options: object) -> None:
        raise error

    return call


def test_a_file_is_created_once_and_then_stays(folder: str, tmp_path: Path) -> None:
    for name, data in (("a", b"first"), ("b", b"second")):
        (tmp_path / name).write_bytes(data)
    uri = storage.join(folder, "deep", "x.bin")
    assert storage.put_new(tmp_path / "a", uri)
    assert not storage.put_new(tmp_path / "b", uri)
    assert not storage.put_new(b"third", uri)
    assert storage.read_bytes(uri) == b"first"
    assert (tmp_path / "a").read_bytes() == b"first"


def test_replacing_and_deleting(folder: str) -> None:
    uri = storage.join(folder, "x.bin")
    storage.put_bytes(b"one", uri)
    storage.put_bytes(b"", uri)
    assert storage.read_bytes(uri) == b""
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete_folder(storage.join(folder, "never there"))


def test_listing_goes_down_the_folders_sorted_and_tells_sizes(folder: str) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt"):
        storage.put_bytes(name.encode(), storage.join(folder, name))
    assert [(storage.join(folder, name), len(name)) for name in ("a.txt", "b/1.txt", "b/2.txt")] == [
        (info.uri, info.size) for info in storage.list_files(folder)
    ]
    assert all(storage.stat(info.uri) == info for info in storage.list_files(folder))
    assert [info.uri for info in storage.list_files(f"{folder}/*.txt")] == [storage.join(folder, "a.txt")]
    assert storage.list_files(storage.join(folder, "nothing")) == []


def test_the_version_of_a_file_changes_with_its_content(tmp_path: Path) -> None:
    uri = str(tmp_path / "x")
    storage.put_bytes(b"1", uri)
    os.utime(uri, (1, 1))
    before = storage.stat(uri)
    storage.put_bytes(b"2", uri)
    assert storage.stat(uri).version != before.version
    assert storage.stat(uri).size == before.size


def test_what_a_folder_of_urls_is_called_is_what_listings_call_it() -> None:
    assert storage.absolute("memory://bucket/out/") == storage.absolute("memory:///bucket/out")


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for empty, every shard would be done again, and an input be "no rows"."""
    monkeypatch.setattr(LocalFileSystem, "ls", raising(PermissionError(errno.EACCES, "Permission denied")))
    for pattern in (str(tmp_path), f"{tmp_path}/*.json"):
        with pytest.raises(ShardFailed, match=r"cannot list .*Permission denied"):
            storage.list_files(pattern)


def test_a_store_that_fails_is_an_environment_fault_and_a_missing_file_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "memory://faults/x"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(uri)
    with pytest.raises(FileNotFoundError):
        storage.open_read(uri)
    assert not storage.exists(uri)
    for name in ("cat_file", "info", "pipe_file", "rm_file", "find", "_open"):
        monkeypatch.setattr(MemoryFileSystem, name, raising(ConnectionError("503")))
    for action in (
        lambda: storage.read_bytes(uri),
        lambda: storage.stat(uri),
        lambda: storage.exists(uri),
        lambda: storage.put_bytes(b"", uri),
        lambda: storage.put_new(b"", uri),
        lambda: storage.delete(uri),
        lambda: storage.list_files(uri),
        lambda: storage.open_read(uri),
    ):
        with pytest.raises(ShardFailed, match=r"cannot \w+ memory://faults/x: ConnectionError: 503"):
            action()


def test_a_failure_in_the_middle_of_reading_is_an_environment_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put_bytes(b"x" * 3_000_000, "memory://faults/long")
    with storage.open_read("memory://faults/long") as file:
        assert file.read(10) == b"x" * 10
        monkeypatch.setattr(file.raw._file, "read", raising(TimeoutError("too slow")))
        with pytest.raises(ShardFailed, match="cannot read memory://faults/long: TimeoutError"):
            file.read()


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(UsageError, match="nope://x"):
        storage.exists("nope://x")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_a_file_on_another_disk_is_copied_and_appears_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """EXDEV where only the source cannot be linked, EPERM where the file system has no links at all."""
    real = os.link
    source, target = tmp_path / "source", tmp_path / "out" / "target"
    source.write_bytes(b"content")
    seen: list[list[str]] = []

    def link(src: object, dst: object) -> None:
        seen.append(sorted(os.listdir(tmp_path / "out")))
        if code == errno.EPERM or Path(str(src)) == source:
            raise OSError(code, os.strerror(code))
        real(src, dst)

    monkeypatch.setattr(os, "link", link)
    assert storage.put_new(source, str(target))
    assert not storage.put_new(source, str(target))
    assert target.read_bytes() == b"content"
    assert os.listdir(tmp_path / "out") == ["target"]
    assert any(name.startswith(storage.PARTIAL_PREFIX) for names in seen for name in names), "copied beside it first"


@pytest.mark.parametrize(("put", "from_file"), [("put_bytes", False), ("put_new", False), ("put_new", True)])
def test_a_full_disk_leaves_neither_the_file_nor_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: str, from_file: bool
) -> None:
    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(os, "link", raising(OSError(errno.EXDEV, "other disk")))
    monkeypatch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, "No space left on device")))
    uri = str(tmp_path / "out" / "x")
    content = tmp_path / "source" if from_file else b"data"
    with pytest.raises(ShardFailed, match=r"cannot write .*No space left on device"):
        getattr(storage, put)(content, uri)
    assert os.listdir(tmp_path / "out") == []


def test_a_replacement_that_fails_leaves_the_old_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "x")
    storage.put_bytes(b"old", uri)
    monkeypatch.setattr(os, "replace", raising(OSError(errno.EIO, "I/O error")))
    with pytest.raises(ShardFailed, match="I/O error"):
        storage.put_bytes(b"new", uri)
    assert Path(uri).read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_leftovers_of_killed_writers_are_removed_by_name(tmp_path: Path) -> None:
    mine, other = (tmp_path / f"{storage.PARTIAL_PREFIX}{name}-0123" for name in ("00001.parquet", "00002.parquet"))
    for path in (mine, other, tmp_path / "00001.parquet"):
        path.touch()
    storage.delete_partials(str(tmp_path / "00001.parquet"))
    assert sorted(os.listdir(tmp_path)) == [other.name, "00001.parquet"]
    storage.delete_partials(str(tmp_path / "no folder" / "x"))


def test_leftovers_of_killed_writers_go_and_the_work_of_live_ones_stays(tmp_path: Path) -> None:
    left, live = (tmp_path / f"{storage.PARTIAL_PREFIX}{name}" for name in ("plan.json-01", "plan.json-02"))
    users = tmp_path / ".mine"
    for path in (left, users):
        path.touch()
    (tmp_path / f"{storage.PARTIAL_PREFIX}link-03").symlink_to(users)
    with live.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        storage.delete_leftovers(str(tmp_path))
        assert not left.exists()
        assert live.exists()
    storage.delete_leftovers(str(tmp_path))
    assert not live.exists()
    assert users.exists()
    storage.delete_leftovers(str(tmp_path / "none"))


@pytest.mark.parametrize("write", ["put_new", "put_bytes"])
def test_a_partial_file_is_locked_until_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    name = "link" if write == "put_new" else "replace"
    publish = getattr(os, name)
    seen = []

    def sweep_and_publish(source: Path, target: Path) -> None:
        storage.delete_leftovers(str(tmp_path))
        seen.append(Path(source).exists())
        publish(source, target)

    monkeypatch.setattr(os, name, sweep_and_publish)
    getattr(storage, write)(b"content", str(tmp_path / "file"))
    assert seen == [True]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_writer_whose_temporary_file_is_swept_away_writes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    swept: list[str] = []

    def link(src: str, dst: str) -> None:
        if not swept:
            swept.append(str(src))
            os.unlink(src)
        real(src, dst)

    monkeypatch.setattr(os, "link", link)
    assert storage.put_new(b"data", str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"data"
    assert len(swept) == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nothing can be made")
def test_a_folder_that_cannot_be_made_is_a_fault_and_not_an_absent_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    for write in (
        lambda uri: storage.put_new(tmp_path / "a", uri),
        lambda uri: storage.put_new(b"data", uri),
        lambda uri: storage.put_bytes(b"data", uri),
    ):
        with pytest.raises(ShardFailed, match=r"cannot write /proc/nope/x: FileNotFoundError"):
            write("/proc/nope/x")


@pytest.mark.parametrize("name", ["a::b", "a::/b", "a::http://host/b", "::b", "x/::b", "zip::b"])
def test_colons_in_a_path_are_part_of_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"abc")
    assert storage.read_bytes(str(path)) == b"abc"
    assert storage.stat(str(path)).size == 3


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((str(tmp_path / "fifo"), "a FIFO"), ("/dev/zero", "a device")):
        for look in (storage.stat, storage.open_read, storage.read_bytes, storage.sha256):
            with pytest.raises(storage.SpecialFile, match=f"is {kind}, and no file"):
                look(path)


def test_a_missing_s3fs_is_named_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # known if it was used before
    for look in (lambda: storage.exists("s3://bucket/x"), lambda: storage.file_system_class("s3")):
        with pytest.raises(UsageError, match=r"s3fs.*pip install 'vqbeam\[s3\]'"):
            look()
