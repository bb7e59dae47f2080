"""Which images are read, and how they become the squares of a model: typed once, for flags and transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import PIL
from PIL import Image

from transforms.errors import UsageError
from transforms.image_formats import libavif_version
from transforms.own_preprocessing import RULES, Rule
from transforms.target_sizes import TargetSizes

Resize = Literal[
    "center_crop", "pad", "squash", "none", "bucket", "area", "llamagen", "chameleon", "diffusers", "showo", "ibq"
]

AUTO = "auto"  # for `resize`: the rule of the model's family
FILTER = Image.Resampling.LANCZOS
BY_ROW = {"bucket": FILTER, "area": Image.Resampling.BICUBIC}  # sizes that differ by row, and their filters
DRAFT_MARGIN = 2  # a JPEG decoded at reduced scale keeps at least this many times the target's pixels a side


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Which images are read at all, and whether their colour profiles count.

    Images beyond `max_image_bytes` or `max_image_pixels` are rejected undecoded. Those outside of `min_image_size`
    (short side) or `max_aspect_ratio` (long side / short side) are filtered. `icc`: embedded profiles are applied, else
    pixels are taken as sRGB. `strict_images`: files are rejected that are damaged where no pixels are.

    Raises `UsageError` for values that make no sense.
    """

    max_image_bytes: int = 64 * 1024 * 1024
    max_image_pixels: int = 89_478_485  # 256 MiB of RGB, the bound that Pillow draws too
    min_image_size: int | None = None
    max_aspect_ratio: float | None = None
    icc: bool = True
    strict_images: bool = False

    def __post_init__(self) -> None:
        for name in ("max_image_bytes", "max_image_pixels", "min_image_size"):
            _check_positive(name, getattr(self, name))
        if self.max_aspect_ratio is not None and self.max_aspect_ratio < 1:
            raise UsageError(f"long side / short side is at least 1, not {self.max_aspect_ratio}", "max_aspect_ratio")


@dataclass(frozen=True)
class ImageOptions(ImageLimits):
    """How images become squares.

    `size`: side in pixels of the square that comes out. `resize`: "center_crop" brings the short side to `size` and
    cuts the middle out, "pad" brings the long side to `size` on white, "squash" ignores the aspect ratio, "none" takes
    only images that already are `size` x `size`; the others are those of families (`own_preprocessing.RULES`).
    `jpeg_scale`: JPEGs are decoded at 1/2, 1/4 or 1/8 if at least twice `size` remains. `whole`: images keep their
    size, for views to be cut from them. `by_row` are the sizes that images are brought to in place of `size`, with
    "bucket", "area" or "none".

    Raises `UsageError` for values that make no sense.
    """

    size: int
    resize: Resize = "center_crop"
    jpeg_scale: bool = True
    whole: bool = False
    by_row: TargetSizes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in get_args(Resize):
            raise UsageError(f"{self.resize!r} is unknown; choose one of {', '.join(get_args(Resize))}", "resize")
        _check_positive("size", self.size)
        if self.resize in BY_ROW and self.by_row is None:
            raise UsageError(f"{self.resize} gives grids that differ by row, which only encode writes", "resize")

    @property
    def rule(self) -> Rule | None:
        """That of a family."""
        return RULES.get(self.resize)


def image_options(size: int, own: str, given: Mapping[str, Any]) -> ImageOptions:
    """The options for a model with images of `size`, whose family's own preprocessing is `own`.

    `given` are fields of `ImageOptions`; no `resize`, or "auto", stands for `own`. The rule of a family comes with all
    that its authors left out: JPEGs are decoded in full, and profiles ignored unless `icc` is given.
    Raises `UsageError`.
    """
    values = dict(given)
    resize: Any = values.pop("resize", None) or AUTO
    resize = own if resize == AUTO else resize
    if resize in RULES:
        if values.get("jpeg_scale"):
            raise UsageError(f"the preprocessing of {resize} decodes JPEGs in full; leave it out", "jpeg_scale")
        values = {"icc": False, **values, "jpeg_scale": False}
    return ImageOptions(size=size, resize=resize, **values)


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"must be at least 1, not {value}", name)


def preprocessing_id(options: ImageOptions) -> dict[str, str | int | None]:
    """The choices that decide the pixels of an image, for provenance and the fingerprint. JSON-ready."""
    return {
        "size": options.size,
        "resize": options.resize,
        "filter": options.rule.filter if options.rule else BY_ROW.get(options.resize, FILTER).name.lower(),
        "background": options.rule.background if options.rule else "white",
        "jpeg_scale": f"at least {DRAFT_MARGIN}x" if options.jpeg_scale else "off",
        "pillow": PIL.__version__,
        "libavif": libavif_version(),
    }
