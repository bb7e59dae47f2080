"""The models of a job as planning needs them: what identifies them, what a picture costs, how many fit at once."""

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
from models.bart.network import DalleBartConfig
from models.clip.checkpoint import open_clip_checkpoint
from models.clip.pixels import ClipPixels
from models.devices import default_batch_size, gpu_bytes
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import VQGANConfig
from models.weights.fingerprints import remembered

CPU_CACHE_BYTES = 2 << 30  # of the keys and values of all pictures that are drawn at once
GPU_CACHE_SHARE = 0.25  # of the GPU's memory, for the same
VALUE_BYTES = {"cpu": 4, "cuda": 2}
MOST_PICTURES = {"cpu": 64, "cuda": 256}  # drawn at once: more makes a device hardly faster
CLIP_BATCH = 32  # pictures
NORMALIZERS = ("ftfy", "unidecode", "emoji")  # packages whose tables decide what a prompt becomes


@dataclass(frozen=True)
class PlannedModel:
    """`role` is what it is to the job: "model" where there is one, else "bart", "vqgan" or "clip".

    `source` is where it is, wherever a command is started; `about` describes it for --dry_run. `identity` goes into the
    fingerprint of the job. `flops` is roughly what one row costs, `batch_size` gives the default for "cpu" or "cuda".
    """

    role: str
    name: str
    source: str
    about: str
    identity: Mapping[str, Any]
    flops: float
    batch_size: Callable[[str], int]


def vqgan_model(checkpoint: VQGANCheckpoint, source: str, role: str = "model") -> PlannedModel:
    """A VQGAN; its identity lies flat in the fingerprint where it is the one model of the job."""
    config = checkpoint.config
    identity = {"weights_id": checkpoint.weights_id(), "pixel_range": list(config.pixel_range)}
    return PlannedModel(
        role=role,
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{checkpoint.format}, {config.resolution} px, {config.codes_per_image} codes of {config.n_embed}",
        identity=identity if role == "model" else {role: identity},
        flops=network_flops(config),
        batch_size=lambda device: default_batch_size(device, config),
    )


def bart_model(checkpoint: BartCheckpoint, source: str, cache: Path, most_pictures: int | None = None) -> PlannedModel:
    """A DALL·E BART with its tokenizer, which draws `most_pictures` at once if given.

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
        flops=drawing_flops(config),
        batch_size=lambda device: min(default_pictures(device, config), most_pictures or MOST_PICTURES[device]),
    )


def clip_model(folder: Path, source: str, cache: Path) -> PlannedModel:
    """A CLIP with its tokenizer and preprocessing. `cache` is as for the BART."""
    checkpoint = open_clip_checkpoint(folder)
    vision = checkpoint.config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    beside = (path for path in folder.iterdir() if path.suffix in (".json", ".txt") and path.name != "config.json")
    stamp = repr(checkpoint.config.to_dict())
    weights_id = remembered(cache / "weights_ids", (checkpoint.file,), stamp, checkpoint.weights_id)
    return PlannedModel(
        role="clip",
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{vision.num_hidden_layers} layers of {vision.hidden_size}, {vision.image_size} px",
        identity={"clip": {"weights_id": weights_id, "files_id": files_id(beside)}},
        flops=2.0 * tokens * vision.num_hidden_layers * 12 * vision.hidden_size**2,
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


def drawing_flops(config: DalleBartConfig) -> float:
    """Roughly what the codes of one picture cost, with guidance: every weight of the decoder, twice a code."""
    width = config.d_model
    layer = 6 * width * width + 3 * width * config.decoder_ffn_dim
    weights = config.decoder_layers * layer + width * config.image_vocab_size
    return 2.0 * 2 * weights * config.image_length


def default_pictures(device: str, config: DalleBartConfig) -> int:
    """A power of two of pictures whose caches fit a part of the memory, guided and unguided halves together."""
    cached = 2 * 2 * config.decoder_layers * config.image_length * config.d_model * VALUE_BYTES[device]
    budget = GPU_CACHE_SHARE * gpu_bytes() if device == "cuda" else CPU_CACHE_BYTES
    pictures = 1
    while 2 * pictures <= MOST_PICTURES[device] and 2 * pictures * cached <= budget:
        pictures *= 2
    return pictures


def network_flops(config: VQGANConfig) -> float:
    """Roughly what one picture costs: the 3x3 convolutions of the encoder."""
    total = 0.0
    for level, mult in enumerate(config.ch_mult):
        width = config.ch * mult
        side = config.resolution / 2**level
        total += 2 * 9 * width * width * side * side * 2 * config.num_res_blocks
    return total


def anywhere(model: str) -> str:
    """The name of a model, independent of the folder that this command was started in."""
    return os.path.abspath(model) if os.path.exists(model) and model != "emoji" else model
