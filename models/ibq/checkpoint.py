"""Open a tokenizer of SEED-Voken, an IBQ or Open-MAGVIT2's LFQ, or that of Emu3.5.

IBQ is taming's network with codes by the largest dot product. The codes of LFQ are signs, the first channel the lowest
bit, and its network has no attention. Files: a checkpoint of Lightning with its `.yaml`, whose averaged weights have
names without dots, and Emu3.5's plain weights, whose `.yaml` has the network at its top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, ConfigError
from models.ibq import lfq
from models.image_tokenizer import CENTER_CROP, TokenizerOptions
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import VQGANConfig
from models.vqgan.taming import find_taming, load_yaml, network_options, network_yamls
from models.weights import pickled
from models.weights.native import configured, folder_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "ibq"
CLASS = "IBQ"  # the last part of the YAML's `model.class_path`
SUFFIXES = (".ckpt", ".pt", ".pth")
AVERAGED = "model_ema."  # before the names of averaged weights, which have lost their dots
LEFT_OUT = ("loss.", AVERAGED)
AVERAGING, RAW = "ema", "raw"


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`."""
    if path.is_file():
        weights = [path] if path.suffix in SUFFIXES else []
    else:
        weights = [*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt")]
    for file in weights:
        described = network_yamls(file.parent) or network_yamls(file.parent.parent / "configs")
        if len(described) > 1:
            described = [yaml for yaml in described if yaml.stem == file.stem]
        if any(_params(load_yaml(yaml)) for yaml in described):
            return path
    return None


def _params(values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Where in a YAML the network stands, and what is there; None if it is not of these forms."""
    model = values.get("model")
    if isinstance(model, dict) and "class_path" in model:
        params = model.get("init_args")
        return "model.init_args", params if isinstance(params, dict) else {}
    return ("the top level", values) if model is None and "ddconfig" in values else None


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `CheckpointError` for another network or several files, `ConfigError` for weights that are not there, or an
    image size that no file says.
    """
    found = find_taming(path)
    if found is None:
        raise CheckpointError(f"{path}: no .ckpt here")
    weights, yaml = found
    values = load_yaml(yaml)
    params = _params(values)
    if params is None:
        raise CheckpointError(f"{yaml}: does not describe an {CLASS}")
    lightning = "model" in values
    named = str(values["model"]["class_path"]) if lightning else CLASS
    about = network_options(params[1], params[0], yaml)
    # Emu3.5 makes no squares of images
    about["preprocessing"] = FORMAT if lightning else CENTER_CROP
    if named.rpartition(".")[2] == CLASS:
        about["quantizer"] = "dot"
    elif lfq.is_lfq(named):
        about |= lfq.network_options(about, lfq.image_size(values, yaml, options))
    else:
        raise CheckpointError(f"{yaml}: model.class_path is {named!r}; {CLASS} and {lfq.CLASSES} are supported")
    ours = lfq.ours if lfq.is_lfq(named) else str
    state = pickled.read_state(weights)
    taken = _taken(weights, params[1], any(name.startswith(AVERAGED) for name in state), options.weights)

    def leaves() -> Iterator[tuple[str, Tensor]]:
        state = pickled.read_state(weights)
        for name, leaf in state.items():
            if name.startswith(LEFT_OUT):
                continue
            averaged = AVERAGED + name.replace(".", "")
            if taken != AVERAGING:
                yield ours(name), leaf
            elif averaged in state:
                yield ours(name), state[averaged]

    opened = VQGANCheckpoint(
        path=weights,
        format=lfq.FORMAT if lfq.is_lfq(named) else FORMAT,
        name=weights.stem if lightning else folder_name(weights.parent),
        config=configured(VQGANConfig.from_dict, about, yaml),
        files=(weights,),
        leaves=leaves,
        choices={} if taken is None else {"weights": taken},
    )
    return opened.under(options)


def _taken(path: Path, params: Mapping[str, Any], has_averages: bool, asked: str | None) -> str | None:
    """Which weights are read: as the originals do, the averages where `use_ema` is true; None if there is one set."""
    if not has_averages:
        if asked == AVERAGING:
            raise ConfigError(f"{path}: holds no averaged weights ({AVERAGED}*); leave weights out")
        if params.get("use_ema") and asked is None:
            raise ConfigError(
                f"{path}: use_ema is true, and the averaged weights ({AVERAGED}*) are not there, with which the "
                "original encodes: choose the raw ones with weights raw"
            )
        return asked
    return asked or (AVERAGING if params.get("use_ema") else RAW)
