"""Memory that decoding takes, as docs/errors.md says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import scene
from tests.support.peak_memory import peak_of

SIDE = 2000
IMPORTS = "from transforms.images import ImageLimits, ImageOptions, decode_image"
DECODE = "decode_image(open(arguments[{}], 'rb').read(), {})"
FITTED, WHOLE = "ImageOptions(size=256, jpeg_scale=False)", "ImageLimits()"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only")


@pytest.mark.parametrize(
    ("kind", "mode", "options", "most"),
    [
        ("JPEG", "RGB", FITTED, 5),
        ("PNG", "RGBA", FITTED, 13),
        ("WEBP", "RGB", FITTED, 17),
        ("TIFF", "F", FITTED, 21),
        ("TIFF", "F", WHOLE, 21),
        ("JPEG", "RGB", WHOLE, 11),
    ],
)
def test_bytes_a_pixel(kind: str, mode: str, options: str, most: int, tmp_path: Path) -> None:
    scene(SIDE, SIDE).convert(mode).save(tmp_path / "large", kind, **({"method": 0} if kind == "WEBP" else {}))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "small", "PNG")
    found = peak_of(
        IMPORTS, DECODE.format(1, options), DECODE.format(0, options), tmp_path / "large", tmp_path / "small"
    )
    assert (found - (tmp_path / "large").stat().st_size) / SIDE**2 < most
