"""Which units for arithmetic the processor has that numba compiles for."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import binding
from numba import config

DOTS_OF_BYTES, WIDE = "avx512vnni", "avx512f"


def has(unit: str) -> bool:
    """Whether compiled functions may use `unit`, an LLVM feature of this very processor."""
    return bool(_features().get(unit))


def _features() -> Mapping[str, bool]:
    """Of this processor; if numba is told of another by its name, only those that `NUMBA_CPU_FEATURES` adds."""
    if config.CPU_NAME is None and config.CPU_FEATURES is None:
        return dict(binding.get_host_cpu_features())
    given = (config.CPU_FEATURES or "").split(",")
    return {feature[1:]: feature.startswith("+") for feature in given if feature}
