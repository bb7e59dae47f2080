"""What the planner needs to know of each kind of model: what decides the output, what a row costs, and the batch.

Nothing here imports torch or Beam.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from models.find import cache_folder
from models.image_tokenizer import TokenizerCheckpoint

if TYPE_CHECKING:
    from models.bart.checkpoint import BartCheckpoint
    from models.clip.checkpoint import ClipCheckpoint
    from models.clip.pixels import ClipPixels
    from models.clip.text import ClipText

CLIP_BATCH = 32  # images
ENCODE, DECODE = 1.0, 1.8  # passes of a tokenizer: decoders have a block more a level, and larger convolutions
NO_MODEL = "none"  # the source of the model of a command that has none
NORMALIZERS = ("ftfy", "unidecode", "emoji")  # packages whose tables decide what a prompt becomes


@dataclass(frozen=True)
class PlannedModel:
    """What planning needs to know of a model. `role` is what it is to the job: "model" if it is the only one, else
    "bart", "vqgan" or "clip".

    `source` is its name from any working folder; `about` describes it for --dry_run. `identity` goes into the
    fingerprint of the job, that of a "model" flat, others under their role. `flops` is roughly what a pass costs for
    an image (of a tokenizer: to encode it), `passes` how many the job does. `batch_size` gives the default for "cpu" or
    "cuda", and the bytes of a GPU that is not this machine's, else None.
    `convolutional`: a network of ours. `check` raises `CheckpointError` for weights that do not fit their network.
    """

    role: str
    name: str
    source: str
    about: str
    identity: Mapping[str, Any]
    flops: float
    batch_size: Callable[[str, int | None], int]
    convolutional: bool = False
    check: Callable[[], object] = field(default=str, compare=False)
    passes: float = 1.0

    @property
    def work(self) -> float:
        """Roughly what an image costs the job."""
        return self.flops * self.passes


def _id_and_check(checkpoint: Any, *cache: Path) -> tuple[str, Callable[[], object]]:
    """The fingerprint of the weights of a checkpoint, and what `PlannedModel.check` is: one that the checkpoint states
    is believed until then, since looking at the shapes takes the network, and with it torch."""
    stated = getattr(checkpoint, "stored", {}).get("weights_id")
    return (str(stated), partial(checkpoint.weights_id, *cache)) if stated else (checkpoint.weights_id(*cache), str)


def tokenizer_model(
    checkpoint: TokenizerCheckpoint, source: str, role: str = "model", passes: float = ENCODE
) -> PlannedModel:
    spec = checkpoint.spec
    own = {name: value for name, value in checkpoint.choices.items() if name == "tokenizer"}
    weights_id, check = _id_and_check(checkpoint)
    return PlannedModel(
        role=role,
        name=spec.name,
        source=anywhere(source),
        about=f"{spec.format}, {spec.resolution} px, {spec.codes_per_image} codes of {spec.codebook_size}",
        identity={"weights_id": weights_id, "pixel_range": list(spec.pixel_range), **own},
        flops=spec.flops,
        batch_size=spec.batch_size,
        convolutional=not own,
        check=check,
        passes=passes,
    )


def bart_model(checkpoint: BartCheckpoint, source: str, cache: str) -> PlannedModel:
    """A DALL·E BART with its tokenizer. `cache` remembers the fingerprint of weights that carry none."""
    config = checkpoint.config
    weights_id, check = _id_and_check(checkpoint, cache_folder(cache))
    identity = {
        "weights_id": weights_id,
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
        identity=identity,
        flops=config.flops,
        batch_size=config.batch_size,
        check=check,
    )


def clip_model(checkpoint: ClipCheckpoint, source: str, cache: str) -> PlannedModel:
    """A CLIP with its text tokenizer and preprocessing. `cache` is as for the BART."""
    vision = checkpoint.config.vision_config
    weights_id, check = _id_and_check(checkpoint, cache_folder(cache))
    described = [path for path in checkpoint.path.iterdir() if path.suffix in (".json", ".txt")]
    identity = {
        "weights_id": weights_id,
        "files_id": files_id(path for path in described if path.name != "config.json"),
    }
    return PlannedModel(
        role="clip",
        name=checkpoint.name,
        source=anywhere(source),
        about=f"{vision.num_hidden_layers} layers of {vision.hidden_size}, {vision.image_size} px",
        identity=identity,
        flops=checkpoint.flops,
        batch_size=lambda device, gpu: CLIP_BATCH,
        check=check,
    )


# What a new plan takes for the choice in `clip_texts`, as `Task.open` has it.
OPEN_CLIP_TEXT = {"clip_text": "clean"}
CLIP_TEXTS = ("clip_text", "clip_normalizers")


def clip_texts(choice: ClipText | None) -> dict[str, Any]:
    """What decides the words that a CLIP reads; None for a choice that was left open. JSON-ready."""
    cleaners = {} if choice == "raw" else {"ftfy": version("ftfy")}
    return {"clip_text": choice, "clip_normalizers": cleaners}


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
