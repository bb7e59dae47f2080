"""The glyphs of Noto Color Emoji as arrays: rendered once at the font's own size, scaled, kept in a cache file.

Images are stored premultiplied (colour times alpha), which is what scaling and composing need.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),  # Debian, Ubuntu: fonts-noto-color-emoji
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),  # Fedora
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),  # Arch
)
BITMAP_SIZE = 109  # the one size of the font's bitmaps; they are 136 pixels wide
RENDER_SIDE = 136
CANONICAL_SIDE = 56  # of the 64 pixels; the drawing inside is 53 pixels at most
SIDES = (44, 48, 52, 56, 60)  # what training shows; CANONICAL_SIDE is one of them


class FontMissing(RuntimeError):
    """The emoji font is not on this machine."""


@dataclass(frozen=True)
class GlyphSet:
    """Glyphs in code point order.

    `keys` are code points in hexadecimal ("1f680"), `names` English ("rocket"); `pixels` maps a side in pixels
    to premultiplied RGBA, uint8 [G, side, side, 4].
    """

    keys: list[str]
    names: list[str]
    pixels: dict[int, np.ndarray]


def find_font() -> Path:
    """The font file, or `FontMissing` with what to install."""
    for path in FONT_PATHS:
        if path.exists():
            return path
    raise FontMissing("Noto Color Emoji not found: install the package fonts-noto-color-emoji, or pass --font FILE")


def render_glyph(font: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """One glyph on a transparent 136x136 RGBA square, its bitmap centred; None if the font lacks it."""
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("RGBA", (RENDER_SIDE, RENDER_SIDE), (0, 0, 0, 0))
    at = ((RENDER_SIDE - (right - left)) / 2 - left, (RENDER_SIDE - (bottom - top)) / 2 - top)
    ImageDraw.Draw(canvas).text(at, text, font=font, embedded_color=True)
    return canvas if canvas.getchannel("A").getbbox() else None


def premultiplied(image: Image.Image, side: int) -> np.ndarray:
    """RGBA image -> uint8 [side, side, 4], colour times alpha, Lanczos."""
    return np.asarray(image.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)).copy()


def render_all(texts: dict[str, str], font_path: Path) -> GlyphSet:
    """Render `texts` (character -> name); characters that the font lacks are left out."""
    font = ImageFont.truetype(str(font_path), BITMAP_SIZE)
    missing = render_glyph(font, "\U0010fffe")
    nothing = None if missing is None else missing.tobytes()
    keys, names = [], []
    rows: dict[int, list[np.ndarray]] = {side: [] for side in SIDES}
    for text in sorted(texts):
        image = render_glyph(font, text)
        if image is None or image.tobytes() == nothing:
            continue
        keys.append(f"{ord(text):x}")
        names.append(texts[text])
        for side in SIDES:
            rows[side].append(premultiplied(image, side))
    return GlyphSet(keys, names, {side: np.stack(images) for side, images in rows.items()})


def load_glyphs(cache: Path, font_path: Path | None = None) -> GlyphSet:
    """The glyph set from `cache` (an .npz file), rendered and stored there on the first call."""
    if not cache.exists():
        from examples.emoji.captions import single_code_point_names

        glyphs = render_all(single_code_point_names(), font_path or find_font())
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial.npz")
        arrays = {f"side_{side}": pixels for side, pixels in glyphs.pixels.items()}
        arrays |= {"keys": np.array(glyphs.keys), "names": np.array(glyphs.names)}
        np.savez_compressed(partial, allow_pickle=False, **arrays)
        os.replace(partial, cache)
    with np.load(cache) as stored:
        pixels = {int(name[5:]): stored[name] for name in stored.files if name.startswith("side_")}
        return GlyphSet([str(k) for k in stored["keys"]], [str(n) for n in stored["names"]], pixels)
