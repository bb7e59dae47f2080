"""Where the models that come from a network are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> str:
    """`$VQBEAM_CACHE`, else `vqbeam` in the user's cache folder."""
    own = os.environ.get("VQBEAM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return own or str(Path(home) / "vqbeam")
