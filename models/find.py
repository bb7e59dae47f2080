"""From a model's name to a local path: the embedded one, a folder or file, an object store, the Hugging Face Hub.

No network is touched unless the name has a scheme.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from filelock import FileLock

from models.errors import CheckpointError

EMBEDDED = {"emoji": Path(__file__).parent / "emoji"}
HUB_SCHEME = "hf://"
# What the checkpoint formats consist of; other files of a remote folder (logs, samples, optimiser states) stay there.
WEIGHTS = ("*.msgpack", "*.safetensors", "*.ckpt", "*.pt", "*.pth", "pytorch_model.bin")  # the last: a CLIP's
PATTERNS = (*WEIGHTS, "*.json", "*.yaml", "*.yml", "*.txt")
DESCRIPTIONS = ("*.json", "*.yaml", "*.yml")
VERSION_KEYS = ("size", "etag", "ETag", "generation", "md5Hash", "crc32c", "mtime", "created", "LastModified")


def locate_model(name: str, cache_dir: Path | str) -> Path:
    """The local folder or file of a model.

    `name` is "emoji" (embedded), a local path, an fsspec URI (gs://, s3://, ...) or hf://owner/name[@revision]. Remote
    ones are copied once into `cache_dir`, again when the remote files have changed. Raises `CheckpointError` where
    there is no such model.
    """
    if name in EMBEDDED:
        folder = EMBEDDED[name]
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"the embedded model {name!r} is not in this installation ({folder}); reinstall vqbeam"
            )
        return folder
    if name.startswith(HUB_SCHEME):
        return _from_hub(name, Path(cache_dir).expanduser())
    if name.startswith("file://"):
        name = name.removeprefix("file://")
    if "://" in name:
        return _from_store(name, Path(cache_dir).expanduser())
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise CheckpointError(_unknown(name))


def _unknown(name: str) -> str:
    message = (
        f"no model {name!r}: it is neither a local folder or file nor the embedded model ({', '.join(EMBEDDED)}); "
        f"one that is elsewhere has a URL (gs://..., s3://..., {HUB_SCHEME}owner/name[@revision])"
    )
    near = difflib.get_close_matches(name, [*EMBEDDED, *_siblings(name)], n=1)
    if near:
        return f"{message}. Did you mean {near[0]!r}?"
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return f"{message}. For a model of the Hugging Face Hub write {HUB_SCHEME + name!r}"
    return message


def _siblings(name: str) -> list[str]:
    """Paths beside the one that does not exist, written as the user wrote it."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        return []
    return [str(path.with_name(entry.name)) for entry in path.parent.iterdir() if path.name]


def _from_hub(name: str, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(HUB_SCHEME).strip("/").partition("@")
    if repository.count("/") != 1:
        raise CheckpointError(f"{name}: expected hf://owner/name or hf://owner/name@revision")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, cache_dir=cache_dir / "hub", allow_patterns=list(PATTERNS)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise CheckpointError(f"{name}: cannot be had from the Hugging Face Hub: {error}") from error
    return Path(folder)


def _from_store(uri: str, cache_dir: Path) -> Path:
    """A copy of a remote file or folder, in a folder of the cache named by the listing that it was made from."""
    try:
        file_system, root = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise CheckpointError(f"{uri}: {error}") from error
    root = root.rstrip("/")
    single = bool(file_system.isfile(root))
    base = str(PurePosixPath(root).parent) if single else root
    wanted = _listing(file_system, root, base, single)
    if not wanted:
        raise CheckpointError(f"{uri}: there is no model file ({', '.join(PATTERNS)})")
    entries = [(path, _version(entry)) for path, entry in sorted(wanted.items())]
    place = cache_dir / hashlib.sha256(repr([uri, entries]).encode()).hexdigest()[:24]
    folder = place / (PurePosixPath(base).name or "model")  # the last part names the model in provenance
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):  # one download a machine; the others wait and find it done
        if not place.is_dir():
            scratch = Path(tempfile.mkdtemp(dir=cache_dir, prefix=".downloading-"))
            try:
                for path in wanted:
                    target = scratch / folder.name / PurePosixPath(path).relative_to(base)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file_system.get_file(path, str(target))
                os.replace(scratch, place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder / PurePosixPath(root).name if single else folder


def _listing(file_system: Any, root: str, base: str, single: bool) -> dict[str, dict[str, Any]]:
    """Path to listing entry of what makes the model; with a single file goes what describes it beside it."""
    if not single:
        found = file_system.find(root, detail=True)
        return {path: entry for path, entry in found.items() if _matches(path, PATTERNS)}
    if not _matches(root, PATTERNS):
        return {}
    beside = {entry["name"]: entry for entry in file_system.ls(base, detail=True) if entry["type"] == "file"}
    descriptions = {path: entry for path, entry in beside.items() if _matches(path, DESCRIPTIONS)}
    return {**descriptions, root: file_system.info(root)}


def _version(entry: dict[str, Any]) -> list[str]:
    return [f"{key}={entry[key]}" for key in VERSION_KEYS if entry.get(key) is not None]


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).match(pattern) for pattern in patterns)
