"""What planning needs to know of a model: what identifies it, what an image costs, how many fit at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL

from models.bart.checkpoint import BartCheckpoint
from models.clip.checkpoint import ClipCheckpoint
from models.clip.pixels import ClipPixels
from models.image_tokenizer import TokenizerCheckpoint

CLIP_BATCH = 32  # images
NORMALIZERS = ("ftfy", "unidecode", "emoji")  # packages whose tables decide what a prompt becomes


@dataclass(frozen=True)
class PlannedModel:
    """`role` is what it is to the job: "model" if it is the only one, else "bart", "vqgan" or "clip".

    `source` is its name from any working folder; `about` describes it for --dry_run. `identity` goes into the
    fingerprint of the job. `flops` is roughly what one row costs, `batch_size` gives the default for "cpu" or "cuda".
    """

    role: str
    name: str
    source: str
    about: str
    identity: Mapping[str, Any]
    flops: float
    batch_size: Callable[[str], int]


def tokenizer_model(checkpoint: TokenizerCheckpoint, source: str, role: str = "model") -> PlannedModel:
    """An image tokenizer; its identity lies flat in the fingerprint if it is the one model of the job."""
    spec = checkpoint.spec
    identity = {"weights_id": checkpoint.weights_id(), "pixel_range": list(spec.pixel_range)}
    return PlannedModel(
        role=role,
        name=spec.name,
        source=anywhere(source),
        about=f"{spec.format}, {spec.resolution} px, {spec.codes_per_image} codes of {spec.codebook_size}",
        identity=identity if role == "model" else {role: identity},
        flops=spec.flops,
        batch_size=spec.batch_size,
    )


def bart_model(checkpoint: BartCheckpoint, source: str, cache: Path, most_images: int | None = None) -> PlannedModel:
    """A DALL·E BART with its tokenizer, which draws `most_images` at once if given.

    `cache` remembers the fingerprint of weights that carry none.
    """
    config = checkpoint.config
    identity = {
        "weights_id": checkpoint.weights_id(cache),
        "config_id": hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest(),
        "text_id": files_id(checkpoint.tokenizer.values()),
        "normalizers": {name: version(name) for name in NORMALIZERS} if config.normalize_text else {},
    }
    return PlannedModel(
        role="bart",
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{checkpoint.format}, {config.encoder_layers}+{config.decoder_layers} layers of {config.d_model}, "
        f"{config.image_length} codes of {config.image_vocab_size}",
        identity={"bart": identity},
        flops=config.flops,
        batch_size=lambda device: min(size := config.batch_size(device), most_images or size),
    )


def clip_model(checkpoint: ClipCheckpoint, source: str, cache: Path) -> PlannedModel:
    """A CLIP with its text tokenizer and preprocessing. `cache` is as for the BART."""
    vision = checkpoint.config.vision_config
    beside = (
        path for path in checkpoint.path.iterdir() if path.suffix in (".json", ".txt") and path.name != "config.json"
    )
    return PlannedModel(
        role="clip",
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{vision.num_hidden_layers} layers of {vision.hidden_size}, {vision.image_size} px",
        identity={"clip": {"weights_id": checkpoint.weights_id(cache), "files_id": files_id(beside)}},
        flops=checkpoint.flops,
        batch_size=lambda device: CLIP_BATCH,
    )


def clip_preprocessing(pixels: ClipPixels) -> dict[str, Any]:
    """What decides the pixels that a CLIP sees. JSON-ready."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(pixels).items()}
    return values | {"resample": pixels.resample.name.lower(), "pillow": PIL.__version__}


def files_id(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names and contents of some files, in any order."""
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def anywhere(model: str) -> str:
    """The name of a model, independent of the folder that this command was started in."""
    return os.path.abspath(model) if os.path.exists(model) and model != "emoji" else model
