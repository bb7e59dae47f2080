"""The formats of images that are read: told by the first bytes, never by the name, and opened by one reader each."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

# The readers are called directly and not through `Image.open`: it would warn about big images through process-wide
# state, cap them at another global, and put memory addresses into messages that have to repeat between attempts.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
)
READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
if "avif" in features.modules and features.check("avif"):  # Pillow 11.3; a name before that warns
    from PIL import AvifImagePlugin

    READERS["AVIF"] = AvifImagePlugin.AvifImageFile
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC"}
OTHERS: tuple[tuple[bytes, str], ...] = (  # that are named when they are refused
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"8BPS", "Photoshop"),
)


def sniff_format(data: bytes) -> str | None:
    """The format by the first bytes, never by the name; None for one that is not known.

    Formats that are not read, and AVIF if this Pillow cannot, are no key of `READERS`.
    """
    for signature, image_format in SIGNATURES:
        if data.startswith(signature):
            return image_format
    if data[4:8] == b"ftyp":  # an ISO media file: its brands, the major one first
        end = min(int.from_bytes(data[:4], "big"), 256)
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), "HEIF" if b"mif1" in brands else None)
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def unreadable(data: bytes, image_format: str | None) -> str:
    """How a file begins that is not read, and what it is."""
    known = image_format or next((name for signature, name in OTHERS if data.startswith(signature)), None)
    return f"begins with {data[:16]!r}" + ("" if known is None else f": {known}, which is not read")


def libavif_version() -> str | None:
    """Readers differ in the colours of AVIF; None if it is not read."""
    return features.version("avif") if "AVIF" in READERS else None
