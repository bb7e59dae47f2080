"""Small images inside the page, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from transforms.errors import RowFiltered, RowRejected
from transforms.image_options import ImageLimits
from transforms.images import decode_image

SIDE = 320  # pixels, of the longer side at most
SMALL = 128  # up to this side without loss
QUALITY = 85


def picture(pixels: np.ndarray) -> str:
    """The data URI of an image uint8 [H, W, 3], made smaller if it is large."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(out, "PNG")
        kind = "png"
    else:
        image.save(out, "JPEG", quality=QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def pixels_of(data: bytes) -> np.ndarray | None:
    """The pixels of a whole image file, whose content nobody vouches for; None if it cannot be read."""
    try:
        return decode_image(data, ImageLimits()).pixels
    except (RowRejected, RowFiltered):
        return None
