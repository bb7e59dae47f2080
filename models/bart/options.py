"""The one table of options that a prompt can have; flags, columns, defaults and the sampler's arrays follow from it.

To add an option of the sampler, add its record to `OPTIONS` and its arithmetic to `models/bart/sampling.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ConfigError
from models.weights.native import CONFIG_NAME, read_json

KEY = "generation"  # of config.json
MAX_IMAGES = 10_000  # of one prompt

Drawing = Mapping[str, int | float]  # a value for every option of `OPTIONS`


@dataclass(frozen=True)
class Option:
    """An option of a prompt; `type` is the Arrow and NumPy type of its column.

    `fits` accepts the finite numbers that can be used, and `wanted` describes them. `default` is the value in
    dalle-mini's notebook, None if the sampler does not read the option (`seed`, `images`).
    """

    name: str
    type: str
    fits: Callable[[Any], bool]
    wanted: str
    default: int | float | None = None
    metavar: str = "N"
    help: str = ""

    @property
    def is_whole(self) -> bool:
        return self.type.startswith("int")


# The sampler holds real numbers as float32: values that would become infinite or zero there do not fit.
_TABLE = (
    Option("seed", "int64", lambda n: 0 <= n < 1 << 63, "a whole number from 0 to 2^63 - 1"),
    Option("images", "int32", lambda n: 1 <= n <= MAX_IMAGES, f"a whole number from 1 to {MAX_IMAGES}"),
    Option("guidance_scale", "float64", lambda x: abs(x) <= 1e6, "a finite number from -1e6 to 1e6", 10.0, "S"),
    Option("temperature", "float64", lambda x: 1e-6 <= x <= 1e6, "a finite number above 0, from 1e-6 to 1e6", 1.0, "T"),
    Option(
        "top_k", "int32", lambda n: n == int(n) and 0 <= n < 1 << 31, "a whole number from 0 to 2^31 - 1", 50, "K",
        "0: all codes",
    ),
    Option("top_p", "float64", lambda x: 1e-30 < x <= 1, "a number above 0, and at most 1", 1.0, "P", "1: off"),
)  # fmt: skip
OPTIONS: Mapping[str, Option] = {option.name: option for option in _TABLE}
SAMPLING: Mapping[str, Option] = {option.name: option for option in _TABLE if option.default is not None}


def read_generation_defaults(path: Path) -> dict[str, int | float]:
    """A value for each option of `SAMPLING`: that in the `config.json` of a BART, else dalle-mini's.

    `path` is the BART's folder, or one of its files. Raises `ConfigError` for a name or value that cannot be used.
    """
    config = (path if path.is_dir() else path.parent) / CONFIG_NAME
    stored = stored_defaults(read_json(config) if config.is_file() else {}, config)
    values: dict[str, Any] = {name: stored.get(name, option.default) for name, option in SAMPLING.items()}
    return {name: int(value) if SAMPLING[name].is_whole else float(value) for name, value in values.items()}


def stored_defaults(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The defaults in the values of the `config.json` at `path`. Raises `ConfigError` as above."""
    stored = values.get(KEY, {})
    if not isinstance(stored, Mapping):
        raise ConfigError(f"{path}: {KEY} is {stored!r}, expected an object with {', '.join(SAMPLING)}")
    for name, value in stored.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in SAMPLING or not number or not SAMPLING[name].fits(value):
            raise ConfigError(
                f"{path}: {KEY} has {name} {value!r}, which cannot be used; it may have {', '.join(SAMPLING)}"
            )
    return dict(stored)
