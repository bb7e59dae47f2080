"""Text of any script as lines of pixels: each part is drawn with a font that has it, so that none is a box."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont, features

from transforms.outputs.fonts import Font, Fonts

LONGEST = 400  # characters that are looked at
ELLIPSIS = "..."
JOINER, TEXT_STYLE, EMOJI_STYLE, KEYCAP = "\u200d", "\ufe0e", "\ufe0f", "\u20e3"
UNDRAWN = (JOINER, "\u200c", TEXT_STYLE, EMOJI_STYLE)
SKIN = range(0x1F3FB, 0x1F400)
FLAGS = range(0x1F1E6, 0x1F200)
TAGS = range(0xE0020, 0xE0080)
FIRST_EMOJI = 0x1F000  # from here on, symbols are drawn as emoji unless the text says otherwise
EMOJI_BELOW = frozenset(
    "⌚⌛⏩⏪⏫⏬⏰⏳◽◾☔☕♈♉♊♋♌♍♎♏♐♑♒♓♿⚓⚡⚪⚫⚽⚾⛄⛅⛎⛔⛪⛲⛳⛵⛺⛽✅✊✋✨❌❎❓❔❕❗➗➰➿⬛⬜⭐⭕"
)
UNBROKEN_BELOW = 0x2E80  # from here on, scripts have no blanks between words
# Scripts whose letters change with their neighbours, for which basic layout is wrong: Arabic to Tibetan, Khmer, ...
SHAPED = (range(0x0590, 0x1000), range(0x1000, 0x10A0), range(0x1780, 0x18B0), range(0x1A20, 0x1AB0))
RIGHT_TO_LEFT = ("R", "AL")
NEUTRAL = ("WS", "ON", "BN", "NSM", "CS", "ES", "ET")
COLOURS = "RGBA"

Ink = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """Consecutive characters of one font and direction."""

    text: str
    font: Font
    right_to_left: bool = False

    @property
    def length(self) -> float:
        return self.font.font.getlength(self.text) * self.font.scale


class Lettering:
    """Measures and draws lines. `shapes`: Pillow has Raqm, which joins letters and orders those from right to left."""

    def __init__(self, fonts: Fonts, shapes: bool | None = None) -> None:
        self.fonts = fonts
        self.shapes = features.check("raqm") if shapes is None else shapes

    def covers(self, text: str) -> bool:
        """Whether every character can be drawn as it should be."""
        if not self.shapes and any(_needs_shaping(letter) for letter in text):
            return False
        return all(self._font_of(cluster) is not None for cluster in clusters(text))

    def wrap(self, text: str, width: int, most: int) -> list[str]:
        """At most `most` lines no wider than `width`; words wider than that are broken, the rest is an ellipsis."""
        lines: list[str] = []
        for word, glued in _words(printable(text)):
            blank = "" if glued else " "
            if lines and self.length(lines[-1] + blank + word) <= width:
                lines[-1] += blank + word
                continue
            lines.append("")
            for cluster in clusters(word):
                if lines[-1] and self.length(lines[-1] + cluster) > width:
                    lines.append("")
                lines[-1] += cluster
            if len(lines) > most:
                break
        if len(lines) > most:
            last = list(clusters(lines[most - 1]))
            while last and self.length("".join(last) + ELLIPSIS) > width:
                last.pop()
            lines[most - 1 :] = ["".join(last).rstrip() + ELLIPSIS]
        return lines

    def length(self, line: str) -> float:
        """Pixels."""
        return sum(run.length for run in self.runs(line))

    def draw(
        self, sheet: Image.Image, line: str, centre: float, baseline: int, ink: Ink, right_to_left: bool = False
    ) -> None:
        """One line into the sheet; `right_to_left` is of the text that it is a line of."""
        runs = self.runs(line, right_to_left)
        left = centre - sum(run.length for run in runs) / 2
        for run in in_visual_order(runs, right_to_left):
            _draw(sheet, run, left, baseline, ink)
            left += run.length

    def runs(self, line: str, right_to_left: bool = False) -> list[Run]:
        """The runs of a line, in the order of its characters. What no font has is left out."""
        found = ((cluster, self._font_of(cluster)) for cluster in clusters(line))
        pairs = [(cluster, font) for cluster, font in found if font is not None]
        usual = self._usual([cluster for cluster, _ in pairs])
        known: list[tuple[str, Font]] = []
        for cluster, font in pairs:
            if cluster.isspace() and known and not is_emoji(known[-1][0]) and _has(known[-1][1], cluster):
                font = known[-1][1]
            elif not is_emoji(cluster) and _has(usual, cluster):
                font = usual
            known.append((cluster, font))
        directions = _directions([cluster for cluster, _ in known], right_to_left)
        cells = [(cluster, font, way) for (cluster, font), way in zip(known, directions, strict=True)]
        return [
            Run(_drawn_by(font, "".join(cluster for cluster, _, _ in part)), font, way)
            for (font, way), part in groupby(cells, lambda cell: cell[1:])
        ]

    def _usual(self, text: list[str]) -> Font:
        """The font that has most of a line, so that a word is not made of two."""
        letters = [cluster for cluster in text if not is_emoji(cluster)]
        fonts = dict.fromkeys([self.fonts.default, *filter(None, map(self._font_of, letters))])
        return max(fonts, key=lambda font: sum(_has(font, cluster) for cluster in letters))

    def _font_of(self, cluster: str) -> Font | None:
        """A font with all of a cluster."""
        letters = [letter for letter in cluster if letter not in UNDRAWN]
        if is_emoji(cluster):
            letters = [letter for letter in letters if ord(letter) not in TAGS and letter != KEYCAP] or letters
        fonts = [self.fonts.first_with(letter, is_emoji(cluster)) for letter in letters] or [self.fonts.default]
        return next((font for font in fonts if font is not None and _has(font, cluster)), None)


def _has(font: Font, cluster: str) -> bool:
    return all(
        letter in UNDRAWN or font.has(letter)
        for letter in cluster
        if not (is_emoji(cluster) and (ord(letter) in TAGS or letter == KEYCAP))
    )


def _drawn_by(font: Font, text: str) -> str:
    """Basic layout draws a box for characters that are to be seen in their neighbours only."""
    if font.font.layout_engine == ImageFont.Layout.RAQM:
        return text
    return "".join(letter for letter in text if letter not in UNDRAWN)


def printable(text: str) -> str:
    """The beginning of a text, composed, without line breaks and lone surrogates."""
    composed = unicodedata.normalize("NFC", text[:LONGEST])
    return "".join(letter if letter.isprintable() or letter in UNDRAWN else " " for letter in composed)


def clusters(text: str) -> Iterator[str]:
    """The parts of a text that are one sign each: a letter with its marks, an emoji with what modifies it."""
    held = ""
    for letter in text:
        code = ord(letter)
        joins = (
            unicodedata.category(letter) in ("Mn", "Me", "Mc")
            or letter in UNDRAWN
            or code in SKIN
            or code in TAGS
            or held.endswith(JOINER)
            or (code in FLAGS and len(held) == 1 and ord(held) in FLAGS)
        )
        if held and not joins:
            yield held
            held = ""
        held += letter
    if held:
        yield held


def is_emoji(cluster: str) -> bool:
    """Whether a cluster is drawn in colour where that can be done."""
    if TEXT_STYLE in cluster:
        return False
    first = cluster[0]
    symbol = ord(first) >= FIRST_EMOJI and unicodedata.category(first) in ("So", "Sk")
    return symbol or EMOJI_STYLE in cluster or KEYCAP in cluster or first in EMOJI_BELOW


def in_visual_order(runs: list[Run], right_to_left: bool = False) -> list[Run]:
    """Runs from left to right, by the rule L2 of Unicode's bidirectional algorithm with two levels."""
    found: list[Run] = []
    for turned, part in groupby(runs, lambda run: run.right_to_left):
        same = list(part)
        found += same if turned is right_to_left else same[::-1]
    return found[::-1] if right_to_left else found


def is_right_to_left(text: str) -> bool:
    """The direction of a text: that of its first letter that has one."""
    kinds = map(unicodedata.bidirectional, text)
    return next((kind in RIGHT_TO_LEFT for kind in kinds if kind in ("L", *RIGHT_TO_LEFT)), False)


def _directions(text: list[str], base: bool) -> list[bool]:
    """Whether each cluster runs from right to left; what has no direction goes on as its neighbours if they agree, else
    as the text."""
    kinds = [unicodedata.bidirectional(cluster[0]) for cluster in text]
    sides = [True if kind in RIGHT_TO_LEFT else None if kind in NEUTRAL else False for kind in kinds]
    found: list[bool] = []
    for i, side in enumerate(sides):
        if side is None:
            before = found[-1] if found else base
            after = next((later for later in sides[i:] if later is not None), base)
            found.append(before if before is after else base)
        else:
            found.append(side)
    return found


def _needs_shaping(letter: str) -> bool:
    code = ord(letter)
    return any(code in block for block in SHAPED) or unicodedata.bidirectional(letter) in RIGHT_TO_LEFT


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """The parts between which a line may end, and whether each follows the one before without a blank."""
    for word in text.split():
        glued = False
        for breaks, part in groupby(clusters(word), lambda cluster: ord(cluster[0]) >= UNBROKEN_BELOW):
            for piece in part if breaks else ["".join(part)]:
                yield piece, glued
                glued = True


def _draw(sheet: Image.Image, run: Run, left: float, baseline: int, ink: Ink) -> None:
    font = run.font
    direction = "rtl" if run.right_to_left else None
    if not font.of_bitmaps:
        canvas = ImageDraw.Draw(sheet)
        canvas.text((left, baseline), run.text, ink, font.font, "ls", direction=direction, embedded_color=True)
        return
    size = int(font.font.size)
    large = Image.new(COLOURS, (math.ceil(font.font.getlength(run.text)) + size, 2 * size))
    ImageDraw.Draw(large).text(
        (0, size * 3 // 2), run.text, (*ink, 255), font.font, "ls", direction=direction, embedded_color=True
    )
    small = large.resize(
        (max(1, round(large.width * font.scale)), max(1, round(large.height * font.scale))), Image.Resampling.LANCZOS
    )
    sheet.paste(small, (round(left), baseline - round(size * 3 // 2 * font.scale)), small)
