"""Open a DALL·E BART checkpoint of any known format, load it, and save it as our own.

Formats: dalle-mini folders (`config.json` + `flax_model.msgpack`, layers stacked or not), min-dalle (`encoder.pt` +
`decoder.pt`), and ours (`config.json` + `model.safetensors`); the tokenizer's files lie beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bart import names
from models.bart.config import DalleBartConfig
from models.bart.options import KEY as GENERATION
from models.bart.options import stored_defaults
from models.bart.text import TextEncoder, open_text_encoder
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerSpec
from models.weights import flax, native, pickled
from models.weights.checkpoint import Checkpoint, detect, leaves_of, weights_id
from models.weights.native import CONFIG_NAME, WEIGHTS_NAME, configured, folder_name
from models.weights.tokenizer_files import tokenizer_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.bart.network import DalleBart

MODEL_TYPE = "vqbeam-dalle-bart"  # marks a config.json as written by `save_bart`
HEADS = {1024: 16, 2048: 32}  # of attention in min-dalle's mini and mega, by their width; no weight says so
MOST_SPARE_IDS = 64
DALLE_MINI_DEFAULTS = {"encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096}  # its own defaults that differ from ours


@dataclass(frozen=True, kw_only=True)
class BartCheckpoint(Checkpoint["DalleBart"]):
    """A DALL·E BART of which only the configuration has been read: see `Checkpoint`.

    `format` is "vqbeam", "dalle-mini" or "min-dalle". `tokenizer` maps the usual names of the tokenizer's files to
    those that are there. `generation` holds the drawing defaults of `config.json`, if any: see
    `models/bart/options.py`.
    """

    config: DalleBartConfig
    tokenizer: Mapping[str, Path]
    generation: Mapping[str, Any] = field(default_factory=dict)

    def builder(self) -> Callable[[], DalleBart]:
        from models.bart.network import DalleBart

        return partial(DalleBart, self.config)

    def text_encoder(self) -> TextEncoder:
        """The text tokenizer beside the weights. Raises `CheckpointError` if it is missing or broken."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return open_text_encoder(folder, self.config, self.tokenizer)

    def load(self) -> DalleBart:
        """The `network`, for inference."""
        return self.network().eval().requires_grad_(False)


def open_bart(path: Path | str) -> BartCheckpoint:
    """Detect the format of a folder, or of one of its weight files, and read its configuration.

    In a folder with both of min-dalle's models mega is opened, as min-dalle does; name a file of mini for mini. Raises
    `CheckpointError`, or `ConfigError` for an option of the configuration that is not implemented, or a drawing default
    that cannot be used.
    """
    return detect(
        Path(path),
        (_open_ours, _open_dalle_mini),
        (_open_min_dalle,),
        "no DALL·E BART checkpoint here. Expected config.json with model.safetensors (vqbeam) or flax_model.msgpack "
        "(dalle-mini), or encoder.pt with decoder.pt (min-dalle)",
    )


def save_bart(
    model: DalleBart,
    folder: Path | str,
    *,
    name: str,
    dtype: torch.dtype | None = None,
    tokenizer: Mapping[str, Path] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Write `config.json`, `model.safetensors` (in `dtype`, by default that of each weight) and the tokenizer's files.

    `tokenizer` and `generation` are as in `BartCheckpoint`; `tokenizer_files` finds the former in a folder.
    """
    checkpoint = BartCheckpoint(
        path=Path(folder),
        format="vqbeam",
        name=name,
        config=model.config,
        files=(),
        tokenizer=tokenizer or {},
        leaves=partial(leaves_of, model, dtype),
        generation=generation or {},
    )
    _write(checkpoint, Path(folder), name)


def convert_bart(source: Path | str, folder: Path | str, *, name: str | None = None) -> BartCheckpoint:
    """Write any known checkpoint as our own, dtype kept; peak memory is the weights and their largest leaf.

    Raises `CheckpointError` if `folder` holds a model already.
    """
    native.refuse_taken(Path(folder))
    checkpoint = open_bart(source)
    _write(checkpoint, Path(folder), name or checkpoint.name)
    return open_bart(folder)


def _write(checkpoint: BartCheckpoint, folder: Path, name: str) -> None:
    weights = dict(checkpoint.checked_leaves())
    values: dict[str, Any] = {"model_type": MODEL_TYPE, "name": name, "converted_from": checkpoint.format}
    values |= checkpoint.config.to_dict()
    if checkpoint.generation:
        values[GENERATION] = dict(checkpoint.generation)
    values["weights_id"] = weights_id(weights.items())
    native.write_model(folder, weights, values, checkpoint.tokenizer)


def _open_ours(folder: Path) -> BartCheckpoint | None:
    stored = native.read_config(folder, MODEL_TYPE)
    if stored is None:
        return None
    weights = folder / WEIGHTS_NAME
    return BartCheckpoint(
        path=folder,
        format="vqbeam",
        name=str(stored.get("name") or folder_name(folder)),
        config=configured(DalleBartConfig.from_dict, stored, folder / CONFIG_NAME),
        files=(weights,),
        tokenizer=tokenizer_files(folder),
        leaves=partial(native.read_weights, weights),
        stored=stored,
        generation=stored_defaults(stored, folder / CONFIG_NAME),
    )


def _open_dalle_mini(folder: Path) -> BartCheckpoint | None:
    files, values = flax.read_folder(folder, "DALL·E BART", "image_vocab_size")
    if not files:
        return None
    start = {"decoder_start_token_id": values["image_vocab_size"]}  # unless `values` has it
    config = configured(DalleBartConfig.from_dict, {**DALLE_MINI_DEFAULTS, **start, **values}, folder / CONFIG_NAME)

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for file in files:
            for name, leaf in flax.read_leaves(file):
                yield from names.from_flax(name, leaf, config.ln_positions)
                del leaf  # a stack of all layers: not beside the next one

    return BartCheckpoint(
        path=folder,
        format="dalle-mini",
        name=folder_name(folder),
        config=config,
        files=tuple(files),
        tokenizer=tokenizer_files(folder),
        leaves=leaves,
        mapped=False,
        generation=stored_defaults(values, folder / CONFIG_NAME),
    )


def _open_min_dalle(path: Path) -> BartCheckpoint | None:
    """`encoder.pt` and `decoder.pt`, or with the suffix `_mini` in the flat folder of the hub."""
    found = _min_dalle_files(path)
    if found is None:
        return None
    files, suffix = found
    folder = files["encoder"].parent
    absent = [file.name for file in files.values() if not file.is_file()]
    if absent:
        raise CheckpointError(f"{folder}: {absent[0]} is missing beside its other half; copy that as well")

    def stored_leaves() -> Iterator[tuple[str, Tensor]]:
        for half, file in files.items():
            for name, leaf in pickled.read_state(file).items():
                yield f"{half}.{name}", leaf

    shapes, scaled = {}, False
    for name, leaf in stored_leaves():
        shapes[name] = tuple(leaf.shape)
        scaled = scaled or (names.needless_scale(name) and bool((leaf != 1).any()))

    def leaves() -> Iterator[tuple[str, Tensor]]:
        """min-dalle's classes have a scale in every norm; those that dalle-mini lacks are ones, and are left out."""
        for name, leaf in stored_leaves():
            if scaled or not names.needless_scale(name):
                yield name, leaf

    return BartCheckpoint(
        path=folder,
        format="min-dalle",
        name=f"min-dalle{suffix}",
        config=infer_geometry(shapes, folder, force_ln_scale=scaled),
        files=tuple(files.values()),
        tokenizer=tokenizer_files(folder, suffix),
        leaves=leaves,
    )


def _min_dalle_files(path: Path) -> tuple[dict[str, Path], str] | None:
    """The two halves and the suffix of their names, of the first size that `path` names or holds a half of."""
    folder = path if path.is_dir() else path.parent
    for suffix in names.MIN_DALLE_SIZES:
        files = {half: folder / f"{half}{suffix}.pt" for half in names.HALVES}
        if path in files.values() or (path.is_dir() and any(file.is_file() for file in files.values())):
            return files, suffix
    return None


def infer_geometry(shapes: Mapping[str, tuple[int, ...]], path: Path, *, force_ln_scale: bool) -> DalleBartConfig:
    """The configuration of a BART whose weights (under our names) have these shapes; prompts are normalised.

    Images begin with the id of the last row; the width implies the number of heads (`HEADS`). Raises `CheckpointError`
    that names `path` if the shapes are not those of min-dalle's encoder and decoder.
    """
    try:
        encoder_vocab_size, d_model = shapes["encoder.embed_tokens.weight"]
        output_size = shapes["decoder.lm_head.weight"][0]  # which the encoder lacks: the halves are not swapped
        max_text_length = shapes["encoder.embed_positions.weight"][0]
        image_length = shapes["decoder.embed_positions.weight"][0]
        halves: dict[str, Any] = {}
        for half in names.HALVES:
            numbers = [re.match(rf"{half}\.layers\.(\d+)\.", name) for name in shapes]
            halves[f"{half}_ffn_dim"] = shapes[f"{half}.layers.0.glu.fc0.weight"][0]
            halves[f"{half}_layers"] = 1 + max(int(number[1]) for number in numbers if number)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: these are not the weights of min-dalle's BART ({error})") from error
    heads = HEADS.get(d_model)
    if heads is None:
        known = " and ".join(f"{width} ({count} heads)" for width, count in HEADS.items())
        raise CheckpointError(
            f"{path}: the weights do not say how many attention heads a width of {d_model} has; known are {known}. "
            "Convert the dalle-mini folder that they were made from instead, whose config.json gives it"
        )
    try:
        return DalleBartConfig(
            encoder_vocab_size=encoder_vocab_size,
            image_vocab_size=output_size - 1,
            image_length=image_length,
            max_text_length=max_text_length,
            d_model=d_model,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            decoder_start_token_id=output_size - 1,
            normalize_text=True,
            force_ln_scale=force_ln_scale,
            **halves,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def check_pair(bart: DalleBartConfig, tokenizer: TokenizerSpec) -> None:
    """Raise `ConfigError` if the codes that the BART draws cannot be those of the tokenizer, a VQGAN.

    An image must have as many codes for both. The BART must know every code, since any may stand in its training data,
    and may have a few ids more: special ones, or rows that round a table up (dalle-mini's own configurations have 7 and
    31 over 16,384). More than `MOST_SPARE_IDS`, or than a sixteenth of a smaller codebook, means another VQGAN. Spare
    ids are never drawn. Equal sizes prove nothing: two models may be paired that were not trained together.
    """
    if bart.image_length != tokenizer.codes_per_image:
        raise ConfigError(
            f"the BART draws {bart.image_length} codes an image and the VQGAN paints {tokenizer.grid}x{tokenizer.grid} "
            f"= {tokenizer.codes_per_image}; name the VQGAN that the BART was trained with"
        )
    spare = bart.image_vocab_size - tokenizer.codebook_size
    if not 0 <= spare <= min(MOST_SPARE_IDS, tokenizer.codebook_size // 16):
        raise ConfigError(
            f"the BART knows {bart.image_vocab_size} codes and the VQGAN's codebook has {tokenizer.codebook_size}, "
            "so it was trained with another one; name the VQGAN that the BART was trained with"
        )
