"""The bytes of one image from a dataset -> the RGB pixels that a model reads. Runs in the decode threads of a worker.

Everything here treats the bytes as hostile: sizes are checked from the header before a pixel is decoded, only seven
formats are ever tried, and every exception of Pillow for a corrupt file becomes a `RowRejected`.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin

from transforms.colour_profiles import Profile, read_profile
from transforms.damaged_images import NO_END, completed_jpegs, has_damaged_pixels, readable_png
from transforms.errors import RowFiltered, RowRejected, amount
from transforms.image_formats import READERS, sniff_format, unreadable
from transforms.image_options import BY_ROW, DRAFT_MARGIN, FILTER, ImageLimits, ImageOptions
from transforms.own_preprocessing import Rule
from transforms.resampling import Box, resize
from transforms.target_sizes import Sides

NOT_TURNED = "an image was not turned as its EXIF says: the model's own preprocessing does not"
WHITE = (255, 255, 255)  # under transparent pixels, and beside padded images
ORIENTATION_TAG = 0x0112

BAD_DATA = (  # what Pillow's readers raise on corrupt bytes; nothing here does I/O that could raise them otherwise
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
    Warning,  # if the user turned warnings into errors
)


@dataclass(frozen=True)
class DecodedImage:
    """`pixels`: uint8 [H, W, 3], read-only. The original sizes are pixels as displayed, after EXIF rotation. `notices`
    say what was ignored in the file. `crops` are those of views (`transforms/views.py`)."""

    pixels: np.ndarray
    original_width: int
    original_height: int
    notices: tuple[str, ...] = ()
    crops: tuple[Any, ...] = ()


def decode_image(data: bytes, options: ImageLimits) -> DecodedImage:
    """Decode, turn upright, bring to sRGB over white, and if `options` are `ImageOptions` resize to [size, size, 3].

    Colours are converted after resizing: of fewer pixels. Of animations and multi-page files the first image is taken.

    Raises `RowRejected` (empty_image, image_too_large, not_an_image, broken_image, too_many_pixels, wrong_size) and
    `RowFiltered` (min_image_size, max_aspect_ratio).
    """
    if not data:
        raise RowRejected("empty_image", "the image has 0 bytes")
    size = amount(len(data), "bytes")
    if len(data) > options.max_image_bytes:
        raise RowRejected("image_too_large", f"{size}; max_image_bytes allows {options.max_image_bytes:,}")
    image_format = sniff_format(data)
    if image_format not in READERS:
        raise RowRejected("not_an_image", f"{unreadable(data, image_format)}; expected one of {', '.join(READERS)}")
    if image_format == "PNG" and has_damaged_pixels(data):  # Pillow does not look
        raise RowRejected("broken_image", f"PNG of {size}: bad checksum in b'IDAT'")
    try:
        try:
            return _decoded(data, image_format, options)
        except BAD_DATA:
            whole = None if options.strict_images else _decoded_despite(data, image_format, options)
            if whole is None:
                raise
            return whole
    except Image.DecompressionBombError as error:  # frames of a GIF and tiles of a TIFF can be larger than the image
        raise RowRejected("too_many_pixels", f"{image_format}: {error}") from error
    except BAD_DATA as error:
        raise RowRejected("broken_image", f"{image_format} of {size}: {_reason(error)}") from error


def _decoded(
    data: bytes, image_format: str, options: ImageLimits, info: Mapping[str, bytes | str] | None = None
) -> DecodedImage:
    """`info` takes the place of what the file says of itself. Raises `BAD_DATA`, `RowRejected` and `RowFiltered`."""
    image = READERS[image_format](io.BytesIO(data))
    check_size(image.size, options)
    width, height = image.size
    box = box_to_fit(image, options)
    image.load()
    image.info.update(info or {})
    turn = upright(image)
    notices = []
    if isinstance(options, ImageOptions) and options.rule and turn is not None:
        turn = None
        notices.append(NOT_TURNED)
    if turn in SIDEWAYS and image_format != "TIFF":  # Pillow's TIFF reader has swapped the sides
        width, height = height, width
    target = None
    if isinstance(options, ImageOptions) and options.by_row:
        target = options.by_row.of((width, height))
        target = target[::-1] if turn in SIDEWAYS and image_format != "TIFF" else target  # as it lies in the file
    pixels, notice = _pixels(image, turn, box, options, target)
    return DecodedImage(pixels, width, height, (*notices, *([notice] if notice else [])))


def _decoded_despite(data: bytes, image_format: str, options: ImageLimits) -> DecodedImage | None:
    """An image that Pillow refused, if all its pixels are there; None if not. Raises as `_decoded` does."""
    if image_format == "PNG":
        png = readable_png(data)
        if not (png.notices or png.info):
            return None
        image = _decoded(png.data, image_format, options, png.info)
        return replace(image, notices=(*sorted(png.notices), *image.notices))
    if image_format == "JPEG":
        completed = completed_jpegs(data)
        # Compared in full: what is cut off or made smaller could hide that half of the image is missing.
        if completed and len({_digest(one, options) for one in completed}) == 1:
            image = _decoded(completed[0], image_format, options)
            return replace(image, notices=(NO_END, *image.notices))
    return None


def _digest(jpeg: bytes, limits: ImageLimits) -> bytes:
    image = READERS["JPEG"](io.BytesIO(jpeg))
    check_size(image.size, limits)
    return hashlib.blake2b(image.tobytes()).digest()


def resized_image(image: Image.Image, options: ImageOptions) -> np.ndarray:
    """An open image -> uint8 [size, size, 3]: upright, RGB over white, and resized as `decode_image` does.

    Raises `RowRejected` (wrong_size, broken_image).
    """
    try:
        image.load()
        turn = None if options.rule else upright(image)
        box = box_to_fit(image, options)
        if image.mode == "RGB":  # of `Image.fromarrow`, whose memory must not be read as `resize` does
            image = image.copy()
        return _pixels(image, turn, box, options)[0]
    except BAD_DATA as error:
        raise RowRejected("broken_image", _reason(error)) from error


def _pixels(
    image: Image.Image, turn: Image.Transpose | None, box: Box, options: ImageLimits, target: Sides | None = None
) -> tuple[np.ndarray, str | None]:
    """The part `box` of a loaded image -> uint8 [H, W, 3], turned; and what was ignored in the file."""
    if isinstance(options, ImageOptions) and options.rule and not options.icc:
        return by_rule(image, options.rule, options), None
    data = image.info.get("icc_profile") if options.icc and image.mode != "LAB" else None
    if data and image.mode == "CMYK":
        profile = read_profile(data, "CMYK")
        result = image if profile.transform else to_grey_or_rgb(image)
    else:
        result = to_grey_or_rgb(image)
        if data and image.mode == "LA":  # grey over white: the profile is one for grey
            result = result.convert("L")
        profile = read_profile(data, result.mode) if data else SRGB
    if isinstance(options, ImageOptions) and options.rule:
        return by_rule(profile.apply(result), options.rule, options), profile.notice
    if turn is None and profile.transform is None and target is None and isinstance(options, ImageOptions):
        whole = resized_box(box, options)
        if whole is not None:  # no image has to be made of the pixels, and pixels of that
            return resize.pixels(result, (options.size, options.size), FILTER, whole), profile.notice
    if target is not None and isinstance(options, ImageOptions):
        result = fit_to(result, box, target, options, profile)
    else:
        result = fit(result, box, options, profile) if isinstance(options, ImageOptions) else profile.apply(result)
    if turn is not None:
        result = result.transpose(turn)
    return np.asarray(result if result.mode == "RGB" else result.convert("RGB")), profile.notice


def by_rule(image: Image.Image, rule: Rule, options: ImageOptions) -> np.ndarray:
    """uint8 [size, size, 3] by the rule of a family, but for modes of which its Pillow would make white or nothing.

    Raises `RowRejected` (too_many_pixels) for a narrow strip, whose whole length would be enlarged before it is cut.
    """
    if image.mode.startswith("I") or image.mode in ("F", "LAB"):
        image = to_grey_or_rgb(image)
    if options.whole:
        return np.asarray(rule.rgb(image))
    width, height = rule.scaled(image.size, options.size)
    if width * height > options.max_image_pixels:
        raise RowRejected(
            "too_many_pixels",
            f"{image.width} x {image.height} pixels become {width} x {height} before they are cut; max_image_pixels "
            f"allows {options.max_image_pixels:,}",
        )
    return np.asarray(rule(image, options.size))


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Apply limits and filters to the size in the header. Raises `RowRejected` or `RowFiltered`."""
    width, height = size
    if width * height > limits.max_image_pixels:
        raise RowRejected(
            "too_many_pixels", f"{width} x {height} pixels; max_image_pixels allows {limits.max_image_pixels:,}"
        )
    if limits.min_image_size is not None and min(size) < limits.min_image_size:
        raise RowFiltered("min_image_size")
    if limits.max_aspect_ratio is not None and max(size) > limits.max_aspect_ratio * min(size):
        raise RowFiltered("max_aspect_ratio")


def box_to_fit(image: Image.Image, options: ImageLimits) -> Box:
    """The part of an image that `fit` takes. A JPEG reader is told to decode at reduced scale if enough remains.

    Raises `RowRejected` for another size if nothing is to be resized.
    """
    width, height = image.size
    if not isinstance(options, ImageOptions) or options.whole:
        return (0.0, 0.0, width, height)
    if options.resize == "none":
        if options.by_row is None and image.size != (options.size, options.size):
            wanted = f"resize none takes only {options.size} x {options.size}"
            raise RowRejected("wrong_size", f"{width} x {height} pixels; {wanted}")
    elif options.jpeg_scale and isinstance(image, JpegImagePlugin.JpegImageFile):
        decisive = max(width, height) if options.resize == "pad" else min(width, height)
        size = max(options.by_row.of(image.size)) if options.by_row else options.size
        scale = next((s for s in (8, 4, 2) if decisive >= s * DRAFT_MARGIN * size), 1)
        drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
        if drafted is not None:
            return drafted[1]
    return (0.0, 0.0, width, height)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB = Profile()
SIDEWAYS = [TURNS[tag] for tag in (5, 6, 7, 8)]


def upright(image: Image.Image) -> Image.Transpose | None:
    """The turn that EXIF asks for; none if the EXIF block is corrupt, as every viewer does."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    except BAD_DATA:
        return None


def to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Any mode that the six formats can hold -> "L" or "RGB", transparent pixels over white."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return deep_to_grey(image)
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return to_srgb.apply(image)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        over_white = Image.new("RGB", image.size, WHITE)
        over_white.paste(with_alpha, mask=with_alpha)
        return over_white
    return image.convert("L" if image.mode == "1" else "RGB")


def deep_to_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey -> 8 bits.

    16-bit files keep their high byte, as Pillow does for 16-bit colour. Wider ones say nothing of their range: it is
    taken as 0..65535 (integers), 0..1, 0..255 or 0..65535 (floats), the first that holds every pixel, else as the
    smallest to the largest value there is.
    """
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        grey = (values >> 8).astype(np.uint8)
        see_through = image.info.get("transparency")
        if see_through is not None:
            grey[values == see_through] = WHITE[0]
        return Image.fromarray(grey)
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(floats.min()), float(floats.max())
        ranges = (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0)
        if low >= 0 and high <= ranges[-1]:
            low, high = 0.0, next(top for top in ranges if high <= top)
        floats -= low
        floats *= 255.0 / (high - low or 1.0)
        return Image.fromarray(floats.clip(0, 255).round().astype(np.uint8))


def fit_to(image: Image.Image, box: Box, target: Sides, options: ImageOptions, profile: Profile) -> Image.Image:
    """The part `box` of an image, brought to a size that is its own: cut in the middle to that of a bucket."""
    if options.resize == "none":
        return profile.apply(image)
    width, height = box[2], box[3]
    if options.resize == "bucket":
        scale = min(width / target[0], height / target[1])
        across, down = target[0] * scale, target[1] * scale
        left, top = (width - across) / 2, (height - down) / 2
        box = (left, top, min(width, left + across), min(height, top + down))
    return profile.apply(resize(image, target, BY_ROW[options.resize], box))


def resized_box(box: Box, options: ImageOptions) -> Box | None:
    """What of the part `box` of an image is resized to the whole result; None if the result is more than that."""
    if options.whole or options.resize not in ("center_crop", "squash"):
        return None
    if options.resize == "squash":
        return box
    width, height = box[2], box[3]
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return left, top, left + short, top + short


def fit(image: Image.Image, box: Box, options: ImageOptions, profile: Profile = SRGB) -> Image.Image:
    """The part `box` of an image -> `size` x `size` in one resampling, cut included, in sRGB."""
    side = options.size
    width, height = box[2], box[3]
    whole = resized_box(box, options)
    if whole is not None:
        return profile.apply(resize(image, (side, side), FILTER, whole))
    if options.whole or options.resize == "none":
        return profile.apply(image)
    scale = side / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = Image.new("RGB", (side, side), WHITE)
    resized = profile.apply(resize(image, inner, FILTER, box))
    padded.paste(resized, ((side - inner[0]) // 2, (side - inner[1]) // 2))
    return padded
