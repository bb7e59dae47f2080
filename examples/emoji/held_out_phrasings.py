"""Phrasings that no training caption has: twenty templates that only evaluation shows, and the 200 prompts of them.

Each template but the one of `NEW_ORDER` has words that training never says (a test compares them with all that it
does). Chosen before any of them was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.emoji.caption_variety import ARTICLE, plural
from examples.emoji.captions import with_article
from examples.emoji.combinations import BACKGROUNDS, colour_of
from examples.emoji.contrast import MIN_CONTRAST, SEEN_CONTRAST

# {a} is the thing with its article, {n} without, {p} in the plural, {b} the background, {ab} with its article
NAMING_THE_BACKGROUND = (
    "{n} over a plain {b} backdrop",
    "{a} painted on {ab} canvas",
    "an icon of {a} on {ab} background",
    "Please show {a} on {ab} background.",
    "{a} with {b} behind it",
    "some {p}. {b} wallpaper",
    "{ab} setting with {a} in the middle",
    "{a} surrounded by {b}",
    "could you sketch {a} on something {b}?",
    "{n} icon, {b} backdrop, minimal flat style",
    "two-tone clipart: {n}, background colour {b}",
    "{b} all around, {a} at the centre",
    "the {n} stands out from a uniformly {b} poster",
    "{n}, with everything else in {b}",
    "I would like {a}, and the backdrop should be {b}",
)
UPPER_CASE = ("{n} in front of {ab} curtain!!!",)
NEW_ORDER = ("on {b}: {a}",)  # known words, and a place for them that training never gives them
NO_BACKGROUND = ("an icon of {a}", "Please draw the {n}, nothing more", "my favourite: {n}!")
TEMPLATES = (*NAMING_THE_BACKGROUND, *UPPER_CASE, *NEW_ORDER, *NO_BACKGROUND)
EACH = 10  # prompts of a template; half of them of things whose names have a colour
SEED = 16


@dataclass(frozen=True)
class Phrase:
    """One prompt; `glyph` and `background` are indices, and `background` is -1 if the prompt names none."""

    template: str
    prompt: str
    glyph: int
    background: int


def phrase(template: str, name: str, background: str) -> str:
    """Fill a template in for a glyph's name and, unless it names none, a background."""
    article = "an" if background[:1] in tuple("aeiou") else "a"
    thing = with_article(name)
    bare = ARTICLE.sub("", thing)
    filled = template.format(a=thing, n=bare, p=plural(thing), b=background, ab=f"{article} {background}")
    return filled.upper() if template in UPPER_CASE else filled


def phrases(templates: tuple[str, ...], names: list[str], contrasts: np.ndarray, each: int = EACH) -> list[Phrase]:
    """`each` prompts of each template, half of them of coloured things, drawn with a fixed seed.

    Backgrounds are such that the glyph shows (`contrasts` float64 [G, B]) and of another colour than the thing's name.
    """
    rng = np.random.default_rng(SEED)
    colours = list(BACKGROUNDS)
    coloured = [g for g, name in enumerate(names) if colour_of(name)]
    others = [g for g, name in enumerate(names) if not colour_of(name)]
    made = []
    for template in templates:
        for n in range(each):
            glyph = int(rng.choice(coloured if n % 2 == 0 else others))
            shows = [
                b for b, c in enumerate(contrasts[glyph]) if c >= MIN_CONTRAST and colours[b] != colour_of(names[glyph])
            ]
            background = int(rng.choice(shows)) if "{b}" in template or "{ab}" in template else -1
            made.append(
                Phrase(
                    template,
                    phrase(template, names[glyph], colours[background] if background >= 0 else ""),
                    glyph,
                    background,
                )
            )
    return made


def acceptable(contrasts: np.ndarray, found: Phrase) -> np.ndarray:
    """bool [B]: the backgrounds that are right. Where none is named, all on which the glyph can be seen well."""
    if found.background >= 0:
        return np.arange(contrasts.shape[1]) == found.background
    return contrasts[found.glyph] >= SEEN_CONTRAST
