"""Open the VQ-8 or VQ-16 of LlamaGen, which Janus and Janus-Pro use too: taming's network, codes by largest cosine.

Files: LlamaGen's `.pt`, a folder with these weights as `model.safetensors` or `pytorch_model.bin`, whole or in parts,
and the folder of a Janus, of whose weights only `gen_vision_model.` is read; also transformers' folders of a Janus,
whose class leaves out the normalisation: the original is the reference. None of them says the size of its images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions
from models.llamagen import names
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.geometry import geometry
from models.vqgan.names import levels_in
from models.weights.native import folder_name, json_beside
from models.weights.parts import INDEX, PICKLES, candidates, mentions, open_parts
from models.weights.pickled import read_states

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "llamagen"
MARK = "encoder.conv_blocks.0.res.0.norm1.weight"
TRANSFORMERS = ("janus", "janus_vqgan")  # `model_type` in config.json
GENERIC = ("model.", "model-", "pytorch_model")  # begin the names of files that do not name a model
FIRST = "encoder.conv_in.weight"
Read = Callable[[bool], Iterator["tuple[str, Tensor]"]]
AVERAGED, RAW = "ema", ("model", "state_dict")  # keys of a training checkpoint


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`. Raises `CheckpointError` if a folder holds several."""
    found = [file for file in candidates(path) if mentions(file, MARK) or _of_transformers(file)]
    if not found:
        return None
    loose = [file for file in found if file.suffix in PICKLES and not file.name.startswith("pytorch_model")]
    if len(loose) > 1 and found == loose:
        several = ", ".join(file.name for file in loose[:5])
        raise CheckpointError(f"{path}: holds several tokenizers of LlamaGen ({several}); name the file")
    return found[0]


def _of_transformers(file: Path) -> bool:
    folder = file.parent
    known = file.suffix == ".safetensors" or file.name.endswith(INDEX) or file.suffix == ".bin"
    return known and json_beside(folder).get("model_type") in TRANSFORMERS and mentions(file, FIRST)


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `ConfigError` unless `options` give the image size and, if the file holds averaged and raw weights, which of
    them; `CheckpointError` for weights of another network.
    """
    files, read, taken = _source(path, options.weights)
    shapes = {name: tuple(leaf.shape) for name, leaf in read(True)}
    levels = levels_in(shapes)

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for name, leaf in read(False):
            if name != names.COUNTER:
                yield names.ours(name, levels), leaf

    renamed = {names.ours(name, levels): shape for name, shape in shapes.items()}
    about: dict[str, Any] = {"quantizer": "cosine", "pixel_range": (-1.0, 1.0), "preprocessing": FORMAT}
    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.parent) if path.name.startswith(GENERIC) else path.stem,
        config=geometry(renamed, None, path, **about),
        files=files,
        leaves=leaves,
        choices={} if taken is None else {"weights": taken},
    )
    options.check_size(
        path,
        "the tokenizers of LlamaGen and Janus do not say how large their images are",
        "256, 384 and 512 are in use; Janus and Janus-Pro take 384",
    )
    return opened.under(options)


def _source(path: Path, asked: str | None) -> tuple[tuple[Path, ...], Read, str | None]:
    """The files of the weights, what reads them, or only their shapes, and which weights were asked for, if any."""
    states = read_states(path, (AVERAGED, *RAW)) if path.suffix in PICKLES else {}
    if states.keys() - {""}:
        key = _key(path, list(states), asked)
        return (path,), lambda only_shapes: iter(read_states(path, (key,))[key].items()), asked
    if asked is not None:
        raise ConfigError(f"{path}: holds one set of weights; leave weights out")
    parts = open_parts(path)
    prefix = parts.prefix_of(MARK if any(name.endswith(MARK) for name in parts.where) else FIRST)
    return parts.files(prefix), lambda only_shapes: parts.read(prefix, only_shapes=only_shapes), None


def _key(path: Path, keys: list[str], asked: str | None) -> str:
    raw = next((key for key in RAW if key in keys), None)
    if asked is None and AVERAGED in keys and raw is not None:
        raise ConfigError(
            f"{path}: holds averaged weights ({AVERAGED}) and raw ones ({raw}): choose with weights, ema or raw. "
            "LlamaGen's extraction of codes takes the raw ones, its demonstrations the averaged"
        )
    key = AVERAGED if asked == "ema" or (asked is None and AVERAGED in keys) else raw
    if key is None or key not in keys:
        raise ConfigError(f"{path}: holds no {'averaged' if asked == 'ema' else 'raw'} weights, but {', '.join(keys)}")
    return key
