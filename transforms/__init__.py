"""The Beam side of vqbeam. The transforms below are for pipelines of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.inference.images import DecodeTokens, EncodeImages, ScoreImages
    from transforms.inference.prompts import GeneratePictures

__all__ = ["DecodeTokens", "EncodeImages", "GeneratePictures", "ScoreImages"]


def __getattr__(name: str) -> Any:
    """Import on first use: they bring torch along, which planning does without."""
    if name in __all__:
        module = "prompts" if name == "GeneratePictures" else "images"
        return getattr(importlib.import_module(f".inference.{module}", __name__), name)
    raise AttributeError(f"module 'transforms' has no attribute {name!r}")
