"""The Beam side of vqbeam. `transforms.EncodeImages` and `transforms.DecodeTokens` are for pipelines of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.run_inference import DecodeTokens, EncodeImages

__all__ = ["DecodeTokens", "EncodeImages"]


def __getattr__(name: str) -> Any:
    """Import on first use: they bring torch along, which planning does without."""
    if name in __all__:
        return getattr(importlib.import_module("transforms.run_inference"), name)
    raise AttributeError(f"module 'transforms' has no attribute {name!r}")
