"""The fonts of this machine, and which of them has a glyph: for captions in any script."""

from __future__ import annotations

import os
import subprocess
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import ImageFont

LIST = ("fc-list", "--format", "%{file}\t%{index}\t%{style}\t%{charset}\n")  # of fontconfig
PATIENCE_S = 20  # it may have to build its cache
FOLDERS = (  # where fonts lie if there is no fontconfig
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
)
ENDINGS = (".ttf", ".otf", ".ttc", ".otc")
MOST_FILES = 500  # that are looked into without fontconfig
BITMAP_SIZES = (109, 160, 136, 128, 96, 64)  # pixels: fonts of bitmaps, as of emoji, have one size or a few
ABSENT = "\U0010ffff"  # no character: what a font draws for it, it draws for every one that it lacks
BOXES = ("lastresort", "adobeblank", "notdef")  # fonts that have no glyphs, for any character
PLAIN = ("regular", "book", "roman", "normal", "medium")
UNLIKE = (
    *("mono", "serif", "condensed", "narrow", "italic", "oblique", "bold", "light", "thin", "black", "display"),
    *("math", "kufi", "nastaliq", "rashi", "looped"),
)
USUAL = ("notosans-regular", "dejavusans", "liberationsans-regular", "arial", "helvetica")  # by the names of files
EMOJI = "emoji"
COLOUR = "color"


@dataclass(frozen=True)
class FontFile:
    """A font in a file. `ranges` are the first and last code points that it has, by fontconfig; None if not known."""

    path: str
    index: int = 0
    style: str = ""
    ranges: tuple[tuple[int, int], ...] | None = None

    @property
    def for_emoji(self) -> bool:
        return EMOJI in Path(self.path).name.lower()

    def may_have(self, letter: str) -> bool:
        if self.ranges is None:
            return True
        place = bisect_right(self.ranges, (ord(letter), 0x110000)) - 1
        return place >= 0 and self.ranges[place][1] >= ord(letter)

    @property
    def order(self) -> tuple[bool, int, bool, int, str, int]:
        """Plain fonts without serifs come first; of those for emoji, the coloured."""
        name = Path(self.path).stem.lower()
        style = self.style.lower().split(",")[0] or name
        odd = sum(word in f"{name} {style}".replace("sansserif", "").replace("sans-serif", "") for word in UNLIKE)
        usual = USUAL.index(name) if name in USUAL else len(USUAL)
        return (COLOUR not in name, usual, not any(word in style for word in PLAIN), odd, self.path, self.index)


class Font:
    """A font that is open, at a size in pixels. A font of bitmaps is open at its own size: `scale` makes it ours."""

    def __init__(self, font: ImageFont.FreeTypeFont, size: int) -> None:
        self.font = font
        self.scale = size / font.size
        self._absent = self._drawn(ABSENT)
        self._known: dict[str, bool] = {}

    @classmethod
    def open(cls, file: FontFile, size: int) -> Font | None:
        """None if Pillow cannot read it."""
        for pixels in (size, *BITMAP_SIZES):
            try:
                return cls(ImageFont.truetype(file.path, pixels, index=file.index), size)
            except OSError:  # no such size, or no font
                continue
        return None

    @property
    def of_bitmaps(self) -> bool:
        return self.scale != 1

    def has(self, letter: str) -> bool:
        """Whether it draws more for a character than for one that does not exist."""
        if letter not in self._known:
            drawn = self._drawn(letter)
            self._known[letter] = letter.isspace() or (drawn != self._absent and any(drawn[1]))
        return self._known[letter]

    def _drawn(self, text: str) -> tuple[tuple[int, int], bytes]:
        try:
            mask = self.font.getmask(text)
        except OSError:  # a glyph of a kind that Pillow does not draw
            return (0, 0), b""
        return mask.size, bytes(mask)


class Fonts:
    """The fonts with which a sheet is lettered, each opened when it is needed. `files` None: those of this machine."""

    def __init__(self, size: int, files: Sequence[FontFile] | None = None) -> None:
        self.size = size
        default = ImageFont.load_default(size)
        assert isinstance(default, ImageFont.FreeTypeFont), "Pillow without FreeType has no font of any size"
        self.default = Font(default, size)
        self._given = files
        self._opened: dict[FontFile, Font | None] = {}
        self._first: dict[tuple[str, bool], Font | None] = {}

    @cached_property
    def _files(self) -> list[FontFile]:
        files = installed() if self._given is None else self._given
        return sorted((file for file in files if not _is_boxes(file)), key=lambda file: file.order)

    def first_with(self, letter: str, emoji: bool = False) -> Font | None:
        """The first font that has a character, of those for emoji if it is one and one of them has it."""
        if (letter, emoji) not in self._first:
            self._first[letter, emoji] = self._found(letter, emoji)
        return self._first[letter, emoji]

    def _found(self, letter: str, emoji: bool) -> Font | None:
        if not emoji and self.default.has(letter):
            return self.default
        for file in sorted(self._files, key=lambda file: file.for_emoji is not emoji):
            if file.may_have(letter):
                font = self._open(file)
                if font is not None and font.has(letter):
                    return font
        return self.default if self.default.has(letter) else None

    def _open(self, file: FontFile) -> Font | None:
        if file not in self._opened:
            self._opened[file] = Font.open(file, self.size)
        return self._opened[file]


def _is_boxes(file: FontFile) -> bool:
    return any(name in Path(file.path).stem.lower().replace(" ", "") for name in BOXES)


def installed() -> list[FontFile]:
    """The fonts that fontconfig knows, else those in the folders where systems keep them."""
    try:
        told = subprocess.run(LIST, capture_output=True, timeout=PATIENCE_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return list(_in_folders())
    return [file for line in told.decode(errors="replace").splitlines() if (file := _listed(line))]


def _listed(line: str) -> FontFile | None:
    """A font in a line of `fc-list`; None for what is no file with outlines, and for an instance of a variable font."""
    path, _, rest = line.partition("\t")
    index, _, rest = rest.partition("\t")
    style, _, charset = rest.partition("\t")
    if not path.lower().endswith(ENDINGS) or not index.isdecimal() or int(index) > 0xFFFF:
        return None
    try:
        pairs = [part.partition("-") for part in charset.split()]
        ranges = sorted((int(first, 16), int(last or first, 16)) for first, _, last in pairs)
    except ValueError:
        return FontFile(path, int(index), style)
    return FontFile(path, int(index), style, tuple(ranges))


def _in_folders() -> Iterator[FontFile]:
    found = 0
    for folder in FOLDERS:
        for place, folders, names in os.walk(os.path.expanduser(folder)):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(ENDINGS) and found < MOST_FILES:
                    found += 1
                    yield FontFile(os.path.join(place, name))
