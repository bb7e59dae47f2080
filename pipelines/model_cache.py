"""Where models that come from a network are kept, on whatever machine they are needed."""

from __future__ import annotations

import os


def default_model_cache() -> str:
    """`$VQBEAM_CACHE`, else `vqbeam` in the user's cache folder; `~` is left for each worker to expand."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.environ.get("VQBEAM_CACHE") or f"{home}/vqbeam"
