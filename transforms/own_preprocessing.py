"""How families of tokenizers make the square of an image themselves: filter, rounding, order, colour of alpha.

The originals are followed exactly: codes of other pixels are other codes. A rule is a function here and a line in
`RULES`; `ImageOptions.resize` calls it by that name. None of them turns images upright or applies colour profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transforms.resampling import Resampling, Sides, resize


@dataclass(frozen=True)
class Rule:
    """`rgb` brings an image of any mode to "RGB", `shrink` makes it smaller by box filters before all else; `sides` are
    those of the whole image, scaled so that its middle, `size` x `size`, is cut out of it. `background` says what lies
    under transparent pixels, `offset` where the cut begins, given how much longer a side is. `resize` is for what
    Pillow does otherwise."""

    rgb: Callable[[Image.Image], Image.Image]
    sides: Callable[[Sides, int], Sides]
    resampling: Resampling
    background: str
    shrink: Callable[[Sides, int], Sides] = lambda sides, size: sides
    offset: Callable[[int], int] = lambda longer: longer // 2
    resize: Callable[[Image.Image, Sides], Image.Image] | None = None

    @property
    def filter(self) -> str:
        return self.resampling.name.lower() if self.resize is None else f"{self.resampling.name.lower()} of opencv"

    def scaled(self, sides: Sides, size: int) -> Sides:
        """The sides of an image before it is cut."""
        return self.sides(self.shrink(sides, size), size)

    def __call__(self, image: Image.Image, size: int) -> Image.Image:
        """An image of any mode -> "RGB", `size` x `size`."""
        image = self.rgb(image)
        target = self.shrink(image.size, size)
        while image.size != target:
            image = resize(image, half(image.size), Resampling.BOX)
        sides = self.sides(image.size, size)
        image = resize(image, sides, self.resampling) if self.resize is None else self.resize(image, sides)
        left, top = self.offset(image.width - size), self.offset(image.height - size)
        return image.crop((left, top, left + size, top + size))


def half(sides: Sides) -> Sides:
    return sides[0] // 2, sides[1] // 2


def halved(sides: Sides, size: int) -> Sides:
    """Halved as long as the short side stays at least `size`."""
    while min(sides) >= 2 * size:
        sides = half(sides)
    return sides


def short_side(sides: Sides, size: int) -> Sides:
    """With `size` as the short side."""
    scale = size / min(sides)
    return round(sides[0] * scale), round(sides[1] * scale)


def short_side_cut(sides: Sides, size: int) -> Sides:
    """With `size` as the short side; the long one is cut to a whole number, as by torchvision's `Resize`."""
    width, height = (int(size * side / min(sides)) for side in sides)
    return width, height


def without_alpha(image: Image.Image) -> Image.Image:
    """The colours below transparent pixels show."""
    if "transparency" in image.info:  # about which Pillow would warn
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def over_white(image: Image.Image) -> Image.Image:
    """Transparent pixels over white, cut to whole levels; an image without an alpha channel stays as it is."""
    if image.mode == "RGB":
        return image
    values = np.asarray(image.convert("RGBA"))
    if not (values[:, :, 3] < 255).any():
        return without_alpha(image)
    pixels = np.empty((*values.shape[:2], 3), np.uint8)
    for row, line in enumerate(values):  # of which one at a time is in float64
        alpha = line[:, 3:] / 255.0
        pixels[row] = (1 - alpha) * 255 + alpha * line[:, :3]
    return Image.fromarray(pixels)


def bilinear(image: Image.Image, sides: Sides) -> Image.Image:
    """An image in "RGB" as `cv2.resize` makes it: between the nearest pixels, whatever lies among those (no
    antialiasing), in whole numbers."""
    values = np.asarray(image)
    if image.size == (2 * sides[0], 2 * sides[1]):  # for which it takes the mean of four
        fours = [values[row::2, column::2].astype(np.int32) for row in (0, 1) for column in (0, 1)]
        return Image.fromarray((np.sum(fours, axis=0) + 2 >> 2).astype(np.uint8))
    columns, across = _taps(image.width, sides[0], inside=True)
    rows, down = _taps(image.height, sides[1], inside=False)
    total = np.full((sides[1], sides[0], 3), 2, np.int32)
    for row, share in zip(rows, down, strict=True):
        line = np.zeros_like(total)
        for column, part in zip(columns, across, strict=True):
            line += values[row][:, column] * part[:, None]
        total += share[:, None, None] * (line >> 4) >> 16
    return Image.fromarray((total >> 2).astype(np.uint8))


def _taps(source: int, target: int, *, inside: bool) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The two pixels between which each of `target` lies, and their weights of 2048; `inside`: one alone at an edge."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    rest = at - first.astype(np.float32)
    if inside:
        rest = np.where((first < 0) | (first >= source - 1), np.float32(0), rest)
    weights = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (np.float32(1) - rest, rest))
    return (first.clip(0, source - 1), (first + 1).clip(0, source - 1)), tuple(weights)


RULES: Mapping[str, Rule] = {
    # `center_crop_arr` of ADM: also that of MaskGIT's, RAR's and TiTok's tokenizers
    "llamagen": Rule(without_alpha, short_side, Resampling.BICUBIC, "alpha dropped", halved),
    "chameleon": Rule(over_white, short_side, Resampling.LANCZOS, "white, cut"),
    # `VaeImageProcessor` of its pipelines: the aspect ratio is not kept
    "diffusers": Rule(without_alpha, lambda sides, size: (size, size), Resampling.LANCZOS, "alpha dropped"),
    # torchvision's `Resize` and `CenterCrop`, which rounds halves to the even number
    "showo": Rule(
        without_alpha, short_side_cut, Resampling.BICUBIC, "alpha dropped", offset=lambda longer: round(longer / 2)
    ),
    # `SmallestMaxSize` and `CenterCrop` of albumentations
    "ibq": Rule(without_alpha, short_side, Resampling.BILINEAR, "alpha dropped", resize=bilinear),
}
