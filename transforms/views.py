"""Several views of one image, decoded once: its centre, the mirror image, ten crops, or random boxes.

`ten_crop` is that of LlamaGen's `extract_codes_c2i.py`, random boxes are drawn as by torchvision's `RandomResizedCrop`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
from PIL import Image

from models.uniforms import uniforms
from transforms.errors import RowRejected, UsageError
from transforms.image_options import FILTER, ImageOptions
from transforms.images import DecodedImage, decode_image
from transforms.resampling import resize

KINDS = {"center": 1, "flip": 2, "ten_crop": 10}  # and their number of views
RANDOM = "random"
MOST = 256  # views of an image, which lie in memory together
TEN_CROP_SCALE = 1.1
RANDOM_SCALE = (0.2, 1.0)  # shares of the area
RATIOS = (3 / 4, 4 / 3)  # of width and height
TRIES = 10  # at a box that fits

Pixels = np.ndarray
Frame = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True)
class Views:
    """`count` views of each image. `crop_scale`: for "ten_crop" how much larger than a crop the image is made, for
    "random" the least and the largest share of its area. `seed` decides the random ones."""

    kind: str
    count: int
    crop_scale: tuple[float, ...] = ()
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """What decides the views, for the fingerprint and provenance."""
        said: dict[str, Any] = {"kind": self.kind, "count": self.count}
        said |= {"crop_scale": list(self.crop_scale)} if self.crop_scale else {}
        return said | ({"seed": self.seed} if self.kind == RANDOM else {})


@dataclass(frozen=True)
class Crop:
    """The part of an image that a view shows, in its pixels as displayed; beyond it if it was padded."""

    left: float
    top: float
    width: float
    height: float
    flipped: bool = False


def views_of(
    text: str, options: ImageOptions, crop_scale: tuple[float, ...] | None = None, seed: int | None = None
) -> Views:
    """The views that are called `text`: one of `KINDS`, or "random:N". Raises `UsageError`."""
    kind, colon, number = text.partition(":")
    count = KINDS.get(kind, int(number) if kind == RANDOM and number.isdecimal() and len(number) < 9 else 0)
    if (kind in KINDS and colon) or not 1 <= count <= MOST:
        expected = f"{', '.join(KINDS)} or {RANDOM}:N with N from 1 to {MOST}"
        raise UsageError(f"{text!r} is unknown; expected {expected}", "views")
    as_it_is = options.resize == "none"
    if options.by_row and kind not in ("center", "flip"):
        raise UsageError(f"{kind} gives squares of the model's size; grids that differ by row go with flip", "views")
    if crop_scale and (kind not in ("ten_crop", RANDOM) or as_it_is):
        why = "resize none cuts without it" if as_it_is else f"views {kind} have none"
        raise UsageError(f"{why}; leave it out", "crop_scale")
    if seed is not None and kind != RANDOM:
        raise UsageError(f"views {kind} are not drawn; leave it out", "seed")
    scale: tuple[float, ...] = ()
    if kind == "ten_crop" and not as_it_is:
        scale = crop_scale or (TEN_CROP_SCALE,)
        if len(scale) != 1 or not 1 <= scale[0] <= 8:
            raise UsageError("views ten_crop take one number from 1 to 8", "crop_scale")
    if kind == RANDOM and not as_it_is:
        scale = crop_scale or RANDOM_SCALE
        scale = (scale[0], 1.0) if len(scale) == 1 else scale
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"views random take LOW,HIGH with 0 < LOW <= HIGH <= 1, not {scale[0]:g},{scale[1]:g}",
                             "crop_scale")  # fmt: skip
    return Views(kind, count, scale, seed or 0)


def decode_views(data: bytes, key: str, *, options: ImageOptions, views: Views) -> DecodedImage:
    """As `decode_image`, with `pixels` uint8 [views, size, size, 3], and the `crops`.

    An image that is smaller than a crop is enlarged as `options` say; with resize "none" its row is rejected.
    Raises `RowRejected` and `RowFiltered`.
    """
    size = options.size
    if views.kind in ("center", "flip"):
        image = decode_image(data, options)
        mirrored = [False, True][: views.count]
        crops = [Crop(*frame(_sides(image), options), flipped=flipped) for flipped in mirrored]
        return _viewed(image, [np.flip(image.pixels, 1) if flipped else image.pixels for flipped in mirrored], crops)
    if options.resize == "none" or views.kind == RANDOM:
        image = decode_image(data, replace(options, whole=True))
        height, width = image.pixels.shape[:2]
        if options.resize == "none" and min(width, height) < size:
            told = (
                f"{width} x {height} pixels, smaller than a view of {size} x {size}, and resize none does not enlarge"
            )
            raise RowRejected("wrong_size", told)
        shown: Frame = (0, 0, width, height)
    else:
        image = decode_image(data, replace(options, size=int(size * views.crop_scale[0])))
        height, width = image.pixels.shape[:2]
        shown = frame(_sides(image), replace(options, size=width))
    boxes = list(_ten(width, height, size) if views.kind == "ten_crop" else _random(width, height, size, key, views))
    across, down = shown[2] / width, shown[3] / height
    crops = [
        Crop(
            shown[0] + box.left * across, shown[1] + box.top * down, box.width * across, box.height * down, box.flipped
        )
        for box in boxes
    ]
    return _viewed(image, [_cut(image.pixels, box, options) for box in boxes], crops)


def _viewed(image: DecodedImage, pixels: Sequence[Pixels], crops: Sequence[Crop]) -> DecodedImage:
    return replace(image, pixels=np.stack(pixels), crops=tuple(crops))


def _sides(image: DecodedImage) -> tuple[int, int]:
    return image.original_width, image.original_height


def frame(sides: tuple[int, int], options: ImageOptions) -> Frame:
    """The part of an image that its square shows, in its own pixels."""
    width, height = sides
    if options.rule:
        scaled = options.rule.scaled(sides, options.size)
        across, down = width / scaled[0], height / scaled[1]
        left, top = (options.rule.offset(side - options.size) for side in scaled)
        return left * across, top * down, options.size * across, options.size * down
    if options.resize in ("center_crop", "pad"):
        side = min(sides) if options.resize == "center_crop" else max(sides)
        return (width - side) / 2, (height - side) / 2, side, side
    if options.by_row and options.resize == "bucket":
        target = options.by_row.of(sides)
        scale = min(width / target[0], height / target[1])
        across, down = target[0] * scale, target[1] * scale
        return (width - across) / 2, (height - down) / 2, across, down
    return 0, 0, width, height


def _cut(pixels: Pixels, box: Crop, options: ImageOptions) -> Pixels:
    """The part of uint8 [H, W, 3] in a box of whole pixels -> [size, size, 3], in one resampling after the cut."""
    left, top, width, height = (int(value) for value in (box.left, box.top, box.width, box.height))
    part, square = pixels[top : top + height, left : left + width], (options.size, options.size)
    if (width, height) != square:
        image, rule = Image.fromarray(np.ascontiguousarray(part)), options.rule
        if rule and rule.resize:
            part = np.asarray(rule.resize(image, square))
        else:
            part = resize.pixels(image, square, rule.resampling if rule else FILTER)
    return np.flip(part, 1) if box.flipped else part


def _ten(width: int, height: int, size: int) -> Iterator[Crop]:
    """Top left, top right, bottom left, bottom right, centre, and the same five of the mirror image."""
    right, bottom = width - size, height - size
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))]
    for left, top in corners:
        yield Crop(left, top, size, size)
    for left, top in corners:
        yield Crop(right - left, top, size, size, flipped=True)


def _random(width: int, height: int, size: int, key: str, views: Views) -> Iterator[Crop]:
    """Each decided by seed, key and its number alone."""
    for view in range(views.count):
        drawn = uniforms(views.seed, key, view, 1 + 4 * TRIES, stream="views").tolist()
        box = _fixed(width, height, size, drawn[1:]) if not views.crop_scale else _resized(
            width, height, views.crop_scale, drawn[1:]
        )  # fmt: skip
        yield Crop(*box, flipped=drawn[0] < 0.5)


def _fixed(width: int, height: int, size: int, drawn: Sequence[float]) -> tuple[int, int, int, int]:
    return int(drawn[0] * (width - size + 1)), int(drawn[1] * (height - size + 1)), size, size


def _resized(width: int, height: int, scale: Sequence[float], drawn: Sequence[float]) -> tuple[int, int, int, int]:
    low, high = log(RATIOS[0]), log(RATIOS[1])
    for start in range(0, 4 * TRIES, 4):
        area = width * height * (scale[0] + drawn[start] * (scale[1] - scale[0]))
        ratio = exp(low + drawn[start + 1] * (high - low))
        across, down = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = drawn[start + 2] * (width - across + 1), drawn[start + 3] * (height - down + 1)
            return int(left), int(top), across, down
    ratio = min(max(width / height, RATIOS[0]), RATIOS[1])  # none fits: the largest in the middle
    across, down = min(width, round(height * ratio)), min(height, round(width / ratio))
    across, down = max(1, across), max(1, down)
    return (width - across) // 2, (height - down) // 2, across, down
