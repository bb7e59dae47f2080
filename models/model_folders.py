"""Which part of a model folder plays which role: the BART that draws codes, the VQGAN that paints, the CLIP that ranks.

Known layouts: that of `models/emoji` and of `vqbeam convert` (`dalle_bart/`, `clip/`, and `vqgan/` or the VQGAN in the
folder itself), min-dalle's cache (`dalle_bart_mega/`, `dalle_bart_mini/`, `vqgan/`), min-dalle's flat folder on the
Hub, and a folder that is one model. Only names and `config.json` are looked at; the checkpoint readers say what is
broken.
"""

from __future__ import annotations

from pathlib import Path

from models.bart.checkpoint import MIN_DALLE_SIZES
from models.errors import CheckpointError
from models.vqgan.taming import find_taming
from models.weights import flax as flax_msgpack
from models.weights.checks import preview
from models.weights.native import CONFIG_NAME, WEIGHTS_NAME, read_json

BART_FOLDERS = ("dalle_bart", "dalle_bart_mega", "dalle_bart_mini")
VQGAN_FOLDER = "vqgan"
CLIP_FOLDER = "clip"


def find_bart(folder: Path) -> Path:
    """The folder (or min-dalle weight file) to give to `open_bart`. Raises `CheckpointError` where there is none."""
    found = first_bart(folder)
    if found is None:
        there = sorted(entry.name for entry in _folder(folder).iterdir()) if _folder(folder).is_dir() else []
        raise CheckpointError(
            f"{folder}: no DALL·E BART here, nor in {', '.join(BART_FOLDERS)}; found {preview(there) or 'nothing'}. "
            "Name the folder of a dalle-mini or min-dalle model, or one that `vqbeam convert` wrote"
        )
    return found


def first_bart(folder: Path) -> Path | None:
    """The same, None where there is none. Any folder of a BART's name will do: `open_bart` says what it lacks."""
    if folder.is_file():
        halves = [f"{half}{suffix}.pt" for half in ("encoder", "decoder") for suffix in MIN_DALLE_SIZES]
        return folder if folder.name in halves else folder.parent if _is_bart(folder.parent) else None
    places = [*(folder / name for name in BART_FOLDERS), folder]
    named = (place for place in places[:-1] if place.is_dir())
    return next((place for place in places if _is_bart(place)), next(named, None))


def find_vqgan(folder: Path) -> Path | None:
    """The folder to give to `open_checkpoint`, None where there is none: `vqgan/`, else the folder itself.

    Where there is no other, any folder of the name `vqgan` will do, as for `first_bart`.
    """
    named, itself = _folder(folder) / VQGAN_FOLDER, _folder(folder)
    found = next((place for place in (named, itself) if _is_vqgan(place)), None)
    return found or (named if named.is_dir() else None)


def vqgan_place(path: Path) -> Path:
    """What to give to `open_checkpoint`: a file, and a folder where none is found, is left for it to judge."""
    return path if path.is_file() else find_vqgan(path) or path


def find_clip(folder: Path) -> Path | None:
    """The folder of a transformers CLIP model, None where there is none: `clip/`, else the folder itself."""
    places = [_folder(folder) / CLIP_FOLDER, _folder(folder)]
    return next((place for place in places if _config(place).get("model_type") == "clip"), None)


def _is_bart(folder: Path) -> bool:
    if any((folder / f"encoder{suffix}.pt").is_file() for suffix in MIN_DALLE_SIZES):
        return True
    return "image_vocab_size" in _config(folder) and _has_weights(folder)


def _is_vqgan(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if any(folder.glob("detoker*.pt")) or ("ch_mult" in _config(folder) and _has_weights(folder)):
        return True
    return find_taming(folder) is not None


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS_NAME, flax_msgpack.WEIGHTS_NAME, flax_msgpack.INDEX_NAME))


def _config(folder: Path) -> dict[str, object]:
    path = folder / CONFIG_NAME
    return read_json(path) if path.is_file() else {}


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path
