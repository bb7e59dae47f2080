"""How a DALL·E BART's pictures are best drawn, where its folder says so: the defaults that flags and rows override."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.bart.drawing_limits import USABLE
from models.errors import ConfigError
from models.weights.native import CONFIG_NAME, read_json

KEY = "generation"  # of config.json


@dataclass(frozen=True)
class GenerationDefaults:
    """Those of dalle-mini's notebook: guidance 10, temperature 1, the 50 best codes (0: all), no nucleus (1)."""

    guidance_scale: float = 10.0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0


def read_generation_defaults(path: Path) -> GenerationDefaults:
    """`generation` in the `config.json` of a BART's folder (or beside one of its files), the notebook's for the rest.

    Raises `ConfigError` for a name or value that means nothing.
    """
    config = (path if path.is_dir() else path.parent) / CONFIG_NAME
    values = asdict(GenerationDefaults()) | stored_defaults(read_json(config) if config.is_file() else {}, config)
    return GenerationDefaults(
        guidance_scale=float(values["guidance_scale"]),
        temperature=float(values["temperature"]),
        top_k=int(values["top_k"]),
        top_p=float(values["top_p"]),
    )


def stored_defaults(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the values of the `config.json` at `path` say of it. Raises `ConfigError` as above."""
    stored = values.get(KEY, {})
    if not isinstance(stored, Mapping):
        raise ConfigError(f"{path}: {KEY} is {stored!r}, expected an object with {', '.join(USABLE)}")
    for name, value in stored.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in USABLE or not number or not USABLE[name](value):
            raise ConfigError(f"{path}: {KEY} has {name} {value!r}, which cannot be used; it may have {list(USABLE)}")
    return dict(stored)
