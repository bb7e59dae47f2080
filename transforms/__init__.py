"""The Beam side of vqbeam. The transforms below are for pipelines of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.inference.images import DecodeTokens, EncodeImages
    from transforms.inference.prompts import GeneratePictures
    from transforms.inference.score_images import ScoreImages

__all__ = ["DecodeTokens", "EncodeImages", "GeneratePictures", "ScoreImages"]

MODULES = {"GeneratePictures": "prompts", "ScoreImages": "score_images"}


def __getattr__(name: str) -> Any:
    """Import on first use: they bring torch along, which planning does without."""
    if name in __all__:
        return getattr(importlib.import_module(f".inference.{MODULES.get(name, 'images')}", __name__), name)
    raise AttributeError(f"module 'transforms' has no attribute {name!r}")
