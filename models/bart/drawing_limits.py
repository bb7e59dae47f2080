"""Which values of guidance, temperature, top-k and top-p can be used; asked of flags, of rows and of a model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# All are held as float32 on the device: what would become infinite there, or zero, is left out.
USABLE: Mapping[str, Callable[[float], bool]] = {
    "guidance_scale": lambda value: abs(value) <= 1e6,
    "temperature": lambda value: 1e-6 <= value <= 1e6,
    "top_k": lambda value: value == int(value) and 0 <= value < 1 << 31,
    "top_p": lambda value: 1e-30 < value <= 1,
}
