"""The captions that training shows: the set's own wording, other fixed ones, made-up ones; some name no background."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from examples.emoji.caption_variety import ARTICLE, CANONICAL, NO_BACKGROUND, VARIANTS, say
from examples.emoji.captions import with_article
from examples.emoji.combinations import BACKGROUNDS, colour_of
from examples.emoji.contrast import CLEAR_CONTRAST, all_contrasts
from examples.emoji.glyphs import GlyphSet
from examples.emoji.wide_captions import Wordings

# of the captions of things that are clear on their background, then of the others' and of what is left
NO_BACKGROUND_SHARE = 0.12
NO_BACKGROUND_SHARE_OF_COLOURED = 0.3  # of things with a colour in their name, which is easily taken for a background's
FIXED_SHARE_WITHOUT_BACKGROUND = 0.3
CANONICAL_SHARE = 0.35
FIXED_SHARE = 0.15  # and the rest is made up


def training_caption(
    thing: str, background: str, rng: np.random.Generator, wordings: Wordings, *, clear: bool
) -> tuple[str, bool]:
    """One caption, and whether it names the background. Only one of an image whose thing is `clear` may not name it:
    so a prompt that names none gets a background that shows the thing."""
    unnamed = NO_BACKGROUND_SHARE_OF_COLOURED if colour_of(thing) else NO_BACKGROUND_SHARE
    if clear and rng.random() < unnamed:
        if rng.random() < FIXED_SHARE_WITHOUT_BACKGROUND:
            return say(NO_BACKGROUND[int(rng.integers(len(NO_BACKGROUND)))], thing, background), False
        return wordings.caption(thing, None, rng), False
    draw = rng.random()
    if draw < CANONICAL_SHARE:
        return say(CANONICAL, thing, background), True
    if draw < CANONICAL_SHARE + FIXED_SHARE:
        return say(VARIANTS[int(rng.integers(len(VARIANTS)))], thing, background), True
    return wordings.caption(thing, background, rng), True


def clear_pairs(glyphs: GlyphSet) -> frozenset[tuple[str, str]]:
    """The things and backgrounds, ("a red apple", "blue"), where the thing can be seen clearly."""
    contrasts = all_contrasts(glyphs)
    unclear = {
        (with_article(glyphs.names[g]), b)
        for g, row in enumerate(contrasts)
        for b, found in zip(BACKGROUNDS, row, strict=True)
        if found < CLEAR_CONTRAST
    }
    return frozenset((with_article(name), b) for name in glyphs.names for b in BACKGROUNDS) - unclear


def wordings_of(things: Iterable[str]) -> Wordings:
    """Made-up wordings with parts of the names of all these things."""
    return Wordings(tuple(dict.fromkeys(ARTICLE.sub("", thing) for thing in things)))
