from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.errors import CheckpointError
from models.find import EMBEDDED, locate_model
from tests.support.paths import ROOT
from tests.support.web_server import QuietHandler, WebServer


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    store = fsspec.filesystem("memory")
    store.pipe({"/models/small/config.json": b"{}", "/models/small/model.safetensors": b"weights"})
    store.pipe({"/models/small/nested/model.yaml": b"a: b", "/models/small/events.out.tfevents": b"log" * 1000})
    yield store
    store.rm("/models", recursive=True)


def test_the_embedded_model_is_a_folder_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = tmp_path / "emoji"
    embedded.mkdir()
    (embedded / "config.json").write_text("{}")
    monkeypatch.setitem(EMBEDDED, "emoji", embedded)
    assert locate_model("emoji", tmp_path / "cache") == embedded


def test_an_installation_without_its_embedded_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "emoji", tmp_path / "gone")
    with pytest.raises(CheckpointError, match="'emoji' is not in this installation"):
        locate_model("emoji", tmp_path)


def test_a_local_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model(str(tmp_path / "mine"), tmp_path / "cache") == tmp_path / "mine"
    assert locate_model(f"file://{tmp_path}/mine", tmp_path / "cache") == tmp_path / "mine"
    assert locate_model("mine", tmp_path / "cache").resolve() == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("emojy", "Did you mean 'emoji'?"),
        ("vqgann", "Did you mean 'vqgan'?"),
        ("dalle-mini/vqgan_imagenet_f16_16384", "write 'hf://dalle-mini/vqgan_imagenet_f16_16384'"),
        ("./quite/elsewhere", "neither a local folder or file nor the embedded model (emoji)"),
        ("./quite/elsewhere", "has a URL (gs://..., s3://..., hf://owner/name[@revision])"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vqgan").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        locate_model(name, tmp_path / "cache")
    assert hint in str(raised.value)


def test_a_remote_folder_is_copied_with_its_model_files_only(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    folder = locate_model("memory://models/small", tmp_path)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["config.json", "model.safetensors", "nested/model.yaml"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert folder.name == "small"


def test_pickled_weights_of_a_clip_are_copied_and_its_optimiser_is_not(
    bucket: MemoryFileSystem, tmp_path: Path
) -> None:
    bucket.pipe({"/models/clip/pytorch_model.bin": b"weights", "/models/clip/optimizer.bin": b"moments"})
    folder = locate_model("memory://models/clip", tmp_path)
    assert [path.name for path in folder.iterdir()] == ["pytorch_model.bin"]


def test_a_remote_folder_is_copied_once(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    get_file = MemoryFileSystem.get_file
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda self, *args, **kw: (copied.append(args[0]), get_file(self, *args, **kw))
    )
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(locate_model("memory://models/small/", tmp_path)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 5
    assert len(copied) == 3


def test_a_remote_folder_that_changed_is_copied_anew(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    first = locate_model("memory://models/small", tmp_path)
    bucket.pipe("/models/small/model.safetensors", b"other weights")
    second = locate_model("memory://models/small", tmp_path)
    assert (first / "model.safetensors").read_bytes() == b"weights"
    assert (second / "model.safetensors").read_bytes() == b"other weights"


def test_a_copy_that_breaks_off_leaves_nothing(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: MemoryFileSystem, source: str, target: str, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("connection reset")

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "get_file", fail)
        with pytest.raises(OSError, match="connection reset"):
            locate_model("memory://models/small", tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert (locate_model("memory://models/small", tmp_path) / "config.json").read_bytes() == b"{}"


def test_a_remote_file_comes_with_what_describes_it(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    file = locate_model("memory://models/small/model.safetensors", tmp_path)
    assert file.read_bytes() == b"weights"
    assert (file.parent / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("uri", ["memory://models/nothing", "memory://models/small/events.out.tfevents"])
def test_a_remote_place_without_a_model_is_told(bucket: MemoryFileSystem, uri: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model file"):
        locate_model(uri, tmp_path)


def test_an_unknown_scheme_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gopher://x/y: .*gopher"):
        locate_model("gopher://x/y", tmp_path)


def test_no_network_module_is_loaded_for_local_names(tmp_path: Path) -> None:
    script = (
        "import sys; from models.find import locate_model; locate_model(sys.argv[1], sys.argv[1]);"
        "assert not {'huggingface_hub', 'gcsfs', 's3fs'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)


COMMIT = "a" * 40
HUB_FILES = {"config.json": b'{"ch_mult": [1]}', "flax_model.msgpack": b"\x80", "README.md": b"# a model"}


class Hub(QuietHandler):
    """The part of the Hugging Face Hub's interface that downloading a public model needs."""

    requests: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        type(self).requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.path in (f"/api/models/me/vqgan/revision/{ref}" for ref in ("main", "v2")):
            siblings = [{"rfilename": name} for name in HUB_FILES]
            content = json.dumps({"id": "me/vqgan", "sha": COMMIT, "siblings": siblings}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
        elif self.path.startswith(f"/api/models/me/vqgan/tree/{COMMIT}"):
            tree = [{"type": "file", "path": k, "size": len(v), "oid": k} for k, v in HUB_FILES.items()]
            content = json.dumps(tree).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
        elif self.path == f"/me/vqgan/resolve/{COMMIT}/{name}" and name in HUB_FILES:
            content = HUB_FILES[name]
            self.send_response(200)
            self.send_header("ETag", f'"{name}-1"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            content = b'{"error": "Repository not found"}'
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], str]]:
    handler = type("FreshHub", (Hub,), {"requests": []})
    with WebServer(handler) as server:
        yield handler, server.url


def locate_at(endpoint: str, name: str, cache: Path) -> str:
    """`locate_model` in a process of its own: the hub's client reads its endpoint when it is imported."""
    script = """
import sys
from models.errors import CheckpointError
from models.find import locate_model
try:
    print(locate_model(sys.argv[1], sys.argv[2]))
except CheckpointError as error:
    print("refused:", error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-c", script, name, str(cache)]
    return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("revision", ["", "@v2"])
def test_a_model_of_the_hub_is_downloaded_into_the_cache(
    hub: tuple[type[Hub], str], revision: str, tmp_path: Path
) -> None:
    handler, endpoint = hub
    folder = Path(locate_at(endpoint, f"hf://me/vqgan{revision}", tmp_path))
    assert tmp_path in folder.parents
    assert (folder / "config.json").read_bytes() == HUB_FILES["config.json"]
    assert (folder / "flax_model.msgpack").read_bytes() == HUB_FILES["flax_model.msgpack"]
    assert not (folder / "README.md").exists()
    assert any(f"revision/{revision[1:] or 'main'}" in path for path in handler.requests)


def test_a_model_that_the_hub_does_not_have_is_told(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    told = locate_at(hub[1], "hf://me/nothing", tmp_path)
    assert told.startswith("refused: hf://me/nothing: cannot be had from the Hugging Face Hub")


@pytest.mark.parametrize("name", ["hf://vqgan", "hf://a/b/c", "hf://"])
def test_a_hub_name_without_owner_and_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected hf://owner/name"):
        locate_model(name, tmp_path)
