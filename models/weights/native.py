"""Our own model folders, which every checkpoint converts to: `config.json` with its kind, and `model.safetensors`.

Nothing here imports torch before weights are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from models.errors import CheckpointError, ConfigError
from models.weights.checks import preview

if TYPE_CHECKING:
    from torch import Tensor

Config = TypeVar("Config")
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
EXPECTED = (
    "Expected a tokenizer of vqgan-jax, taming-transformers, min-dalle, LlamaGen, Janus, Chameleon, diffusers "
    "(VQModel), Show-o, SEED-Voken (IBQ, LFQ), Emu3, Emu3.5 or MaskGIT (of 1d-tokenizer), a DALL·E BART of dalle-mini "
    "or min-dalle, or what `vqbeam convert` made of one."
)
UNFINISHED = ".writing-"  # begins the name of a folder while a model is written
SAMPLE = "weights_sample"  # in config.json, beside the `weights_id` that it vouches for
SAMPLE_PARTS, SAMPLE_BYTES = 256, 1 << 16  # so up to 16 MiB are read, and smaller files whole


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of brackets in brackets in brackets
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return values


def json_beside(folder: Path) -> dict[str, Any]:
    """The `config.json` in a folder, empty if it has none."""
    path = folder / CONFIG_NAME
    return read_json(path) if path.is_file() else {}


def configured(build: Callable[[Mapping[str, Any]], Config], values: Mapping[str, Any], path: Path) -> Config:
    """`build(values)`, with the file `path` named in a `ConfigError`."""
    try:
        return build(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def folder_name(folder: Path) -> str:
    """The name of a model whose files give none: that of its folder, or on the Hugging Face Hub."""
    folder = folder.resolve()
    cached = folder.parent.parent.name  # models--OWNER--NAME/snapshots/COMMIT in the cache of the Hub
    return cached.removeprefix("models--").replace("--", "/") if folder.parent.name == "snapshots" else folder.name


def read_config(folder: Path, model_type: str) -> dict[str, Any] | None:
    """The `config.json` beside a `model.safetensors`; None if there are no such weights.

    Raises `CheckpointError` if the weights are cut short, or the configuration is not ours or not of these weights.
    """
    weights, path = folder / WEIGHTS_NAME, folder / CONFIG_NAME
    if not weights.is_file():
        return None
    stored = json_beside(folder)
    found = str(stored.get("model_type"))
    if found != model_type and found.startswith("vqbeam-"):
        raise CheckpointError(f"{path}: describes a {found}, where a {model_type} was expected; name another folder")
    foreign = foreign_model(folder)
    if found != model_type and foreign is not None:
        raise CheckpointError(f"{folder}: {not_ours(foreign)}")
    if found != model_type:
        raise CheckpointError(
            f"{weights}: there is no {CONFIG_NAME} beside it that vqbeam wrote, and its weights ({_names_in(weights)}) "
            f"are of no other model that vqbeam reads. {EXPECTED}"
        )
    with _opened(weights, framework="np") as file:  # needs no torch; checks the length of the file, too
        written = (file.metadata() or {}).get("weights_id")
    claimed = stored.get("weights_id")
    if (claimed and written and written != claimed) or (SAMPLE in stored and stored[SAMPLE] != _sample(weights)):
        raise CheckpointError(
            f"{folder}: {CONFIG_NAME} and {WEIGHTS_NAME} do not belong together; copy both again. If the weights were "
            f"changed on purpose, take {SAMPLE}, weights_id and codebook_id out of {CONFIG_NAME} and `vqbeam convert` "
            "the folder"
        )
    return stored


def foreign_model(folder: Path) -> str | None:
    """What a folder of transformers, diffusers or 1d-tokenizer holds, in words; None if `config.json` is of none."""
    stored = json_beside(folder)
    network = stored.get("model")
    if isinstance(network, dict) and "num_latent_tokens" in str(network.get("vq_model")):
        return "TiTok of 1d-tokenizer (its codes are no grid)"
    names = stored.get("architectures")
    if isinstance(names, list) and names:
        return f"{names[0]} of transformers"
    if "_class_name" in stored:
        return f"{stored['_class_name']} of diffusers"
    kind = stored.get("model_type")
    return f"{kind} model of transformers" if "transformers_version" in stored or kind == "clip" else None


def not_ours(foreign: str) -> str:
    """Says that a model of another package cannot be opened here, and what can be."""
    hint = " A CLIP scores images: it is given as clip." if "clip" in foreign.lower() else ""
    return f"this is a {foreign}, which vqbeam does not read. {EXPECTED}{hint}"


def _names_in(weights: Path) -> str:
    with _opened(weights, framework="np") as file:
        return preview(list(file.keys()))


def _sample(path: Path) -> str:
    """SHA-256 (hex) of a file's size and of parts that are spread evenly over it.

    It detects other weights of the same shapes in milliseconds, without reading gigabytes at each start. It can miss a
    few changed bytes in a larger file.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in range(0, size, max(SAMPLE_BYTES, -(-size // SAMPLE_PARTS))):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def read_weights(path: Path, *, only_shapes: bool = False, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The weights of a safetensors file whose names begin with `prefix`, one at a time.

    Raises `CheckpointError` if it is cut short or another kind.

    With `only_shapes` they have no values, on the device "meta": only the header of the file is read.
    """
    import torch

    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            if not name.startswith(prefix):
                continue
            shape = file.get_slice(name).get_shape()
            yield name, torch.empty(shape, device="meta") if only_shapes else file.get_tensor(name)


@contextmanager
def _opened(path: Path, framework: str = "pt") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short ({error}); copy it again") from error


def refuse_taken(folder: Path) -> None:
    """Raise `CheckpointError` if a folder holds a model already. What a cut-off `write_model` left there is removed."""
    for left in folder.glob(f"{UNFINISHED}*"):
        if not (folder / CONFIG_NAME).exists():  # which comes last
            forget_model(folder)
        shutil.rmtree(left, ignore_errors=True)
    taken = [entry for entry in (CONFIG_NAME, WEIGHTS_NAME) if (folder / entry).exists()]
    if taken:
        raise CheckpointError(f"{folder}: holds {' and '.join(taken)} already; choose another folder or remove them")


def forget_model(folder: Path) -> None:
    """Remove what makes a folder a model; other files stay."""
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        (folder / name).unlink(missing_ok=True)


def write_model(
    folder: Path, weights: dict[str, Tensor], values: Mapping[str, Any], beside: Mapping[str, Path] | None = None
) -> None:
    """Write the files `beside` a model (name to source), its weights, then the configuration that makes it one.

    `values` are what `config.json` holds, the `weights_id` among them; `SAMPLE` is added. Each file appears atomically.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as scratch:
        for name, source in (beside or {}).items():
            shutil.copyfile(source, Path(scratch) / name)
        save_file(weights, Path(scratch) / WEIGHTS_NAME, metadata={"format": "pt", "weights_id": values["weights_id"]})
        _sort_metadata(Path(scratch) / WEIGHTS_NAME)
        stored = {**values, SAMPLE: _sample(Path(scratch) / WEIGHTS_NAME)}
        (Path(scratch) / CONFIG_NAME).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        shutil.copymode(Path(scratch) / CONFIG_NAME, Path(scratch) / WEIGHTS_NAME)  # safetensors 0.8: the owner's alone
        for name in (*(beside or {}), WEIGHTS_NAME, CONFIG_NAME):
            with (Path(scratch) / name).open("rb") as file:
                os.fsync(file.fileno())
            os.replace(Path(scratch) / name, folder / name)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header of a safetensors file: the library writes them in random order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))
