"""Image tokens and text-to-image generation in bulk: what programs import from vqbeam.

    tokenizer = vqbeam.load("emoji")
    codes = tokenizer.encode([Image.open("photo.png")])
    images = vqbeam.load_generator("emoji").generate(["a red apple"], seed=1)

`EncodeImages`, `DecodeTokens`, `GeneratePictures` and `ScoreImages` are transforms for Beam pipelines; `TokenDataset`
feeds tables of tokens to a training in torch. Names are
imported on first use: torch and Beam take seconds. A project may have folders called `models` or `transforms`; they do
not collide with vqbeam's.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vqbeam.own_packages import install

if TYPE_CHECKING:
    from models.errors import CheckpointError, ConfigError, ModelError
    from models.image_tokenizer import TokenizerSpec
    from transforms.errors import RowRejected, UsageError
    from transforms.inference.images import DecodeTokens, EncodeImages, ScoreImages
    from transforms.inference.load import Generator, Tokenizer, load, load_generator
    from transforms.inference.prompts import GeneratePictures
    from transforms.training.token_dataset import TokenDataset

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DecodeTokens",
    "EncodeImages",
    "GeneratePictures",
    "Generator",
    "ModelError",
    "RowRejected",
    "ScoreImages",
    "TokenDataset",
    "Tokenizer",
    "TokenizerSpec",
    "UsageError",
    "load",
    "load_generator",
]

HOMES = {
    "models.errors": ("CheckpointError", "ConfigError", "ModelError"),
    "models.image_tokenizer": ("TokenizerSpec",),
    "transforms.errors": ("RowRejected", "UsageError"),
    "transforms.inference.images": ("DecodeTokens", "EncodeImages", "ScoreImages"),
    "transforms.inference.load": ("Generator", "Tokenizer", "load", "load_generator"),
    "transforms.inference.prompts": ("GeneratePictures",),
    "transforms.training.token_dataset": ("TokenDataset",),
}

install()


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
