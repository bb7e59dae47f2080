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
import torch
from fsspec.implementations.memory import MemoryFileSystem

from models.bart.checkpoint import save_bart
from models.errors import CheckpointError
from models.find import EMBEDDED, Model, locate_model
from models.vqgan import checkpoint as vqgans
from models.vqgan.checkpoint import open_checkpoint, save_vqgan
from tests.support.bart_checkpoints import TINY_BART, random_bart, write_dalle_mini, write_min_dalle
from tests.support.paths import ROOT
from tests.support.vqgan_checkpoints import TINY, min_dalle_weights, random_vqgan, write_taming, write_vqgan_jax
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
def test_a_remote_path_without_a_model_is_reported(bucket: MemoryFileSystem, uri: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model file"):
        locate_model(uri, tmp_path)


def test_an_unknown_scheme_is_reported(tmp_path: Path) -> None:
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
    """`locate_model` in a new process: the hub's client reads its endpoint when it is imported."""
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


def test_a_model_that_the_hub_does_not_have_is_reported(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    printed = locate_at(hub[1], "hf://me/nothing", tmp_path)
    assert printed.startswith("refused: hf://me/nothing: cannot be had from the Hugging Face Hub")


def test_a_part_of_a_repository_is_downloaded_alone(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    file = Path(locate_at(hub[1], "hf://me/vqgan/flax_model.msgpack@v2", tmp_path))
    assert file.read_bytes() == HUB_FILES["flax_model.msgpack"]
    assert (file.parent / "config.json").is_file(), "what describes it"
    kept = {path.name for path in file.parent.iterdir()}
    assert kept < set(HUB_FILES)
    printed = locate_at(hub[1], "hf://me/vqgan/vqvae", tmp_path)
    assert printed.startswith("refused: hf://me/vqgan/vqvae: me/vqgan holds no vqvae")


@pytest.mark.parametrize("name", ["hf://vqgan", "hf://a/", "hf://"])
def test_a_hub_name_without_owner_and_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected hf://owner/name"):
        locate_model(name, tmp_path)


def bart_weights() -> dict[str, torch.Tensor]:
    return dict(random_bart().state_dict())


def vqgan_weights() -> dict[str, torch.Tensor]:
    return dict(random_vqgan().state_dict())


def write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))


def test_the_embedded_layout(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="tiny")
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    write_clip(tmp_path / "clip")
    assert Model(tmp_path).bart_path == tmp_path / "dalle_bart"
    assert vqgans.find(tmp_path) == tmp_path
    assert Model(tmp_path).clip_path == tmp_path / "clip"


def test_the_layout_that_convert_writes(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path / "vqgan", name="tiny")
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    assert Model(tmp_path).bart_path == tmp_path / "dalle_bart"
    assert vqgans.find(tmp_path) == tmp_path / "vqgan"
    assert Model(tmp_path).clip_path is None


@pytest.mark.parametrize(("sizes", "found"), [(["mini"], "mini"), (["mega"], "mega"), (["mini", "mega"], "mega")])
def test_the_cache_of_min_dalle(sizes: list[str], found: str, tmp_path: Path) -> None:
    for size in sizes:
        write_min_dalle(tmp_path / f"dalle_bart_{size}", bart_weights())
    (tmp_path / "vqgan").mkdir()
    torch.save(min_dalle_weights(vqgan_weights()), tmp_path / "vqgan" / "detoker.pt")
    assert Model(tmp_path).bart_path == tmp_path / f"dalle_bart_{found}"
    vqgan = vqgans.find(tmp_path)
    assert vqgan == tmp_path / "vqgan"
    assert open_checkpoint(vqgan).format == "min-dalle"


def test_the_flat_folder_of_min_dalle(tmp_path: Path) -> None:
    write_min_dalle(tmp_path, bart_weights())
    write_min_dalle(tmp_path, bart_weights(), suffix="_mini")
    torch.save(min_dalle_weights(vqgan_weights()), tmp_path / "detoker.pt")
    assert Model(tmp_path).bart_path == vqgans.find(tmp_path) == tmp_path
    mini = tmp_path / "encoder_mini.pt"
    assert Model(mini).bart_path == mini
    assert Model(mini).tokenizer.spec.format == "min-dalle"


def test_a_folder_that_is_one_model(tmp_path: Path) -> None:
    write_dalle_mini(tmp_path / "bart", bart_weights(), TINY_BART)
    write_vqgan_jax(tmp_path / "jax", vqgan_weights(), TINY)
    write_taming(tmp_path / "taming", vqgan_weights(), TINY)
    write_clip(tmp_path / "clip_alone")
    assert Model(tmp_path / "bart").bart_path == tmp_path / "bart"
    assert Model(tmp_path / "bart" / "flax_model.msgpack").bart_path == tmp_path / "bart"
    assert Model(tmp_path / "bart").bart.format == "dalle-mini"
    assert vqgans.find(tmp_path / "bart") is None
    assert vqgans.find(tmp_path / "jax") == tmp_path / "jax"
    assert vqgans.find(tmp_path / "taming") == tmp_path / "taming"
    assert Model(tmp_path / "clip_alone").clip_path == tmp_path / "clip_alone"
    assert Model(tmp_path / "bart").clip_path is None


def test_a_part_that_is_incomplete_is_found_by_its_name_and_told_by_its_reader(tmp_path: Path) -> None:
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    save_vqgan(random_vqgan(), tmp_path / "vqgan", name="tiny")
    (tmp_path / "dalle_bart" / "config.json").unlink()
    (tmp_path / "vqgan" / "model.safetensors").unlink()
    model = Model(tmp_path)
    assert model.bart_path == tmp_path / "dalle_bart"
    assert vqgans.find(tmp_path) == tmp_path / "vqgan"
    with pytest.raises(CheckpointError, match=r"dalle_bart/model\.safetensors: there is no config\.json beside it"):
        _ = model.bart
    with pytest.raises(CheckpointError, match=r"vqgan: no VQGAN checkpoint here\. .*found config\.json$"):
        _ = model.tokenizer


def test_a_folder_without_a_bart_is_reported_with_what_it_holds(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="tiny")
    with pytest.raises(CheckpointError, match=r"no DALL·E BART here.*found config\.json, model\.safetensors\. Name"):
        _ = Model(tmp_path).bart
    with pytest.raises(CheckpointError, match="found nothing"):
        _ = Model(tmp_path / "nowhere").bart


NO_TORCH = """
import sys, models
model = models.find(sys.argv[1], "")
lengths = model.tokenizer.spec.codes_per_image, model.bart.config.image_length
print(*lengths, model.clip_path is not None, "torch" in sys.modules)
"""


def test_a_model_is_found_and_described_without_torch() -> None:
    found = subprocess.run([sys.executable, "-c", NO_TORCH, "emoji"], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "64 64 True False\n", found.stderr
