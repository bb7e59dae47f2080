"""The one way to open a model: from its name to files on this machine, and to the parts that they hold.

A name is that of the embedded model, a folder or file, or a URL of an object store or of the Hugging Face Hub. Only a
name with a scheme uses the network. torch is imported only to read weights, and by transformers to open a CLIP.

Layouts of a folder: that of `models/emoji` and of `vqbeam convert` (`dalle_bart/`, `clip/`, and `vqgan/` or the VQGAN
in the folder itself), min-dalle's cache (`dalle_bart_mega/`, `dalle_bart_mini/`, `vqgan/`), min-dalle's flat folder on
the Hub, and a folder that is one model. Only names and `config.json` are looked at here; the checkpoint readers say
what is broken.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from models.bart.names import HALVES, MIN_DALLE_SIZES
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerCheckpoint, TokenizerOptions, find_tokenizer, open_tokenizer
from models.own_class import open_own
from models.weights.checks import names_in
from models.weights.flax import describes
from models.weights.native import json_beside

if TYPE_CHECKING:
    from models.bart.checkpoint import BartCheckpoint
    from models.clip.checkpoint import ClipCheckpoint

BART_FOLDERS = ("dalle_bart", "dalle_bart_mega", "dalle_bart_mini")
CLIP_FOLDER = "clip"
EMBEDDED = {"emoji": Path(__file__).parent / "emoji"}
HUB_SCHEME = "hf://"
# The files of the checkpoint formats; others in a remote folder (logs, samples, optimiser states) stay there.
PICKLES = ("*.ckpt", "*.pt", "*.pth", "pytorch_model.bin", "pytorch_model-*.bin", "diffusion_pytorch_model*.bin")
WEIGHTS = ("*.msgpack", "*.safetensors", *PICKLES)
PATTERNS = (*WEIGHTS, "*.json", "*.yaml", "*.yml", "*.txt")
DESCRIPTIONS = ("*.json", "*.yaml", "*.yml")
VERSION_KEYS = ("size", "etag", "ETag", "generation", "md5Hash", "crc32c", "mtime", "created", "LastModified")


def find(name: str, cache_dir: Path | str, options: TokenizerOptions | None = None) -> Model:
    """The model of a name, as `locate_model` finds it; raises as that does. A missing part raises when it is used."""
    return Model(locate_model(name, cache_dir), options)


@dataclass(frozen=True)
class Model:
    """The files of a model. Each part is opened, without its weights, when it is first used.

    `options` are those of the tokenizer.
    """

    path: Path  # a folder or file
    options: TokenizerOptions | None = None

    @cached_property
    def tokenizer(self) -> TokenizerCheckpoint:
        """The image tokenizer. Raises `CheckpointError` and `ConfigError`, as `open_tokenizer` and `open_own` do."""
        if self.options is not None and self.options.tokenizer is not None:
            if self.path in EMBEDDED.values():
                raise ConfigError(
                    f"tokenizer {self.options.tokenizer}: name the file or folder that it opens as the model"
                )
            return open_own(self.path, self.options)
        return open_tokenizer(self._tokenizer_path, self.options)

    @cached_property
    def bart(self) -> BartCheckpoint:
        """The DALL·E BART. Raises `CheckpointError` if there is none or it is broken, `ConfigError` as `open_bart`."""
        from models.bart.checkpoint import open_bart

        if self.bart_path is None:
            raise CheckpointError(
                f"{self.path}: no DALL·E BART here, nor in {', '.join(BART_FOLDERS)}; found {names_in(self.folder)}. "
                "Name the folder of a dalle-mini or min-dalle model, or one that `vqbeam convert` wrote"
            )
        return open_bart(self.bart_path)

    @cached_property
    def clip(self) -> ClipCheckpoint:
        """The CLIP. Raises `CheckpointError` if there is none or it is broken, `ConfigError` without transformers."""
        from models.clip.checkpoint import open_clip_checkpoint

        if self.clip_path is None:
            raise CheckpointError(
                f"{self.path}: no CLIP here, nor in {self.path / CLIP_FOLDER}; name the folder of a transformers "
                "CLIPModel"
            )
        return open_clip_checkpoint(self.clip_path)

    @property
    def folder(self) -> Path:
        return self.path.parent if self.path.is_file() else self.path

    @property
    def has_tokenizer(self) -> bool:
        return find_tokenizer(self._tokenizer_path) is not None

    @property
    def _tokenizer_path(self) -> Path:
        """The folder for a file of a BART, else the path."""
        return self.folder if self.bart_path else self.path

    @property
    def bart_path(self) -> Path | None:
        """The folder or min-dalle file to give to `open_bart`; None if there is none.

        If no folder has weights, one that is named like a BART is returned: `open_bart` reports what it lacks.
        """
        if self.path.is_file():
            halves = [f"{half}{suffix}.pt" for half in HALVES for suffix in MIN_DALLE_SIZES]
            return self.path if self.path.name in halves else self.folder if _is_bart(self.folder) else None
        named = [self.path / name for name in BART_FOLDERS]
        complete = (folder for folder in (*named, self.path) if _is_bart(folder))
        return next(complete, next((folder for folder in named if folder.is_dir()), None))

    @property
    def clip_path(self) -> Path | None:
        """The folder of a transformers CLIP model; None if there is none."""
        folders = (self.folder / CLIP_FOLDER, self.folder)
        return next((folder for folder in folders if json_beside(folder).get("model_type") == "clip"), None)


def _is_bart(folder: Path) -> bool:
    if any((folder / f"encoder{suffix}.pt").is_file() for suffix in MIN_DALLE_SIZES):
        return True
    return describes(folder, "image_vocab_size")


def cache_folder(name: Path | str) -> Path:
    """The folder that keeps copies of models; "" stands for that of the machine that asks: $VQBEAM_CACHE, else vqbeam
    in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(name or os.environ.get("VQBEAM_CACHE") or f"{home}/vqbeam").expanduser()


def locate_model(name: str, cache_dir: Path | str) -> Path:
    """The local folder or file of a model. Raises `CheckpointError` if there is no such model.

    `name` is "emoji" (embedded), a local path, an fsspec URI (gs://, s3://, ...) or
    hf://owner/name[/part][@revision]. Remote ones are copied into `cache_dir`, as `cache_folder` finds it, once, and
    again after the remote files have changed.
    """
    if name in EMBEDDED:
        if not (EMBEDDED[name] / "config.json").is_file():
            raise CheckpointError(
                f"the embedded model {name!r} is not in this installation ({EMBEDDED[name]}); reinstall vqbeam"
            )
        return EMBEDDED[name]
    if name.startswith(HUB_SCHEME):
        return _from_hub(name, cache_folder(cache_dir))
    name = name.removeprefix("file://")
    if "://" in name:
        return _from_store(name, cache_folder(cache_dir))
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise CheckpointError(_unknown(name, path))


def _unknown(name: str, path: Path) -> str:
    message = (
        f"no model {name!r}: it is neither a local folder or file nor the embedded model ({', '.join(EMBEDDED)}); "
        f"one that is elsewhere has a URL (gs://..., s3://..., {HUB_SCHEME}owner/name[@revision])"
    )
    import difflib

    beside = path.parent.iterdir() if path.name and path.parent.is_dir() else ()
    near = difflib.get_close_matches(name, [*EMBEDDED, *map(str, beside)], n=1)
    if near:
        return f"{message}. Did you mean {near[0]!r}?"
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return f"{message}. For a model of the Hugging Face Hub write {HUB_SCHEME + name!r}"
    return message


def _from_hub(name: str, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    inside, _, revision = name.removeprefix(HUB_SCHEME).strip("/").partition("@")
    owner, _, rest = inside.partition("/")
    repository, _, part = rest.partition("/")
    if not repository:
        raise CheckpointError(f"{name}: expected {HUB_SCHEME}owner/name[/folder or file][@revision]")
    wanted = PATTERNS if not part else (part, *(f"{part}/{pattern}" for pattern in PATTERNS), *_beside(part))
    try:
        folder = snapshot_download(
            f"{owner}/{repository}",
            revision=revision or None,
            cache_dir=cache_dir / "hub",
            allow_patterns=list(wanted),
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise CheckpointError(f"{name}: cannot be had from the Hugging Face Hub: {error}") from error
    found = Path(folder, part)
    if not found.exists():
        raise CheckpointError(f"{name}: {owner}/{repository} holds no {part}; see its files on the Hugging Face Hub")
    return found


def _beside(part: str) -> list[str]:
    """What may describe a file: patterns in its folder."""
    folder = PurePosixPath(part).parent.as_posix()
    return [pattern if folder == "." else f"{folder}/{pattern}" for pattern in DESCRIPTIONS]


def _from_store(uri: str, cache_dir: Path) -> Path:
    """A copy of a remote file or folder, in a folder of the cache named by the hash of the remote listing."""
    import fsspec
    from filelock import FileLock

    try:
        file_system, root = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        why = str(error)
        if isinstance(error, ImportError) and uri.startswith(("s3://", "s3a://")):
            why = f"{error.__cause__ or error}; for S3, install the extra: pip install 'vqbeam[s3]'"
        raise CheckpointError(f"{uri}: {why}") from error
    root = root.rstrip("/")
    single = bool(file_system.isfile(root))
    base = str(PurePosixPath(root).parent) if single else root
    wanted = _listing(file_system, root, base, single)
    if not wanted:
        raise CheckpointError(f"{uri}: there is no model file ({', '.join(PATTERNS)})")
    entries = [(path, _version(entry)) for path, entry in sorted(wanted.items())]
    copied = cache_dir / hashlib.sha256(repr([uri, entries]).encode()).hexdigest()[:24]
    folder = copied / (PurePosixPath(base).name or "model")  # the last part names the model in provenance
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copied}.lock"):  # one download a machine; the others wait and find it done
        if not copied.is_dir():
            scratch = cache_dir / f".downloading-{copied.name}"
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            try:
                for path in wanted:
                    target = scratch / folder.name / PurePosixPath(path).relative_to(base)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file_system.get_file(path, str(target))
                os.replace(scratch, copied)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder / PurePosixPath(root).name if single else folder


def _listing(file_system: Any, root: str, base: str, single: bool) -> dict[str, dict[str, Any]]:
    """Path to listing entry of the model's files; a single file comes with those that describe it."""
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
