"""ICC profiles of images -> transforms to sRGB, by littleCMS through Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MOST_BYTES = 4 << 20  # of a profile: printers' are up to 3 MiB
KEPT = 16  # profiles of which transforms are kept
FITTING = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # the mode of an image by the colour space of its profile
LATTICE = 9  # levels a channel that show whether a profile is sRGB


@dataclass(frozen=True)
class Profile:
    """What a profile does to images of one mode: `transform` brings them to "RGB", None leaves them as they are.

    `notice` says why a profile is ignored.
    """

    transform: ImageCms.ImageCmsTransform | None = None
    notice: str | None = None

    def apply(self, image: Image.Image) -> Image.Image:
        if self.transform is None:
            return image
        converted: Image.Image = self.transform.apply(image)
        return converted


@lru_cache(KEPT)
def read_profile(data: bytes, mode: str) -> Profile:
    """The profile for images of `mode`. One that changes no colour by more than one level is taken for sRGB itself.

    The rendering intent is Pillow's default, perceptual.
    """
    if len(data) > MOST_BYTES:
        return Profile(notice=f"a colour profile of more than {MOST_BYTES >> 20} MiB was ignored")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = source.profile.xcolor_space
        if FITTING.get(space) != mode:
            return Profile(notice=f"a colour profile for {space.strip()} in an image that is {mode} was ignored")
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return Profile() if _changes_nothing(transform, mode) else Profile(transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return Profile(notice="a broken colour profile was ignored")


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, LATTICE if mode == "RGB" else 256).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1) if mode == "RGB" else levels
    before = colours.reshape(1, -1, 3) if mode == "RGB" else colours[None]
    after = np.asarray(transform.apply(Image.fromarray(before)), np.int16)
    return int(np.abs(after - (before if mode == "RGB" else before[..., None])).max()) <= 1
