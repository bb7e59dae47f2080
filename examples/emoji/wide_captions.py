"""Captions in made-up wordings: they teach which words name the thing and which the background, whatever else is said.

A wording is put together at random from parts: what comes before the thing, how it is linked to the background, what
the background is called, what follows. Ordinary words and words that do not exist are strewn between them. None of
the words that make the templates of `held_out_phrasings.py` new is among them (a test compares).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from examples.emoji.caption_variety import ARTICLE, plural
from examples.emoji.wide_words import (
    ADJECTIVES,
    CALLS,
    CODAS,
    ENDINGS,
    EVENLY,
    FILLERS,
    GROUNDS,
    KINDS,
    LINKS,
    ONSETS,
    VOWELS,
)

STOPS = (", ", ", ", ", ", ". ", " - ", " / ", ": ", " ", " | ", "; ", " (")


def wide_caption(thing: str, background: str | None, rng: np.random.Generator) -> str:
    """One made-up wording for a thing, which comes with its article if it has one, and a background or none."""
    named = _thing(thing, rng)
    if background is None:
        parts = [named]
    else:
        article = "an" if background[0] in "aeiou" else "a"
        parts = _around(named, background, f"{article} {background}", rng)
    if rng.random() < 0.35:
        parts.insert(0, _one(CALLS, rng))
    if rng.random() < 0.25:
        parts += [_one(STOPS, rng), _one(ENDINGS, rng)]
    for _ in range(min(4, int(rng.geometric(0.5)) - 1)):
        parts.insert(int(rng.integers(len(parts) + 1)), _stray(rng))
    text = " ".join(part for part in parts if part)
    return re.sub(r"\s+([,.:;!)])", r"\1", re.sub(r"\s+", " ", text)).strip() + _one(("", "", "", ".", "!", "?"), rng)


def pseudo_word(rng: np.random.Generator) -> str:
    """A word that could be English: one to three syllables, sometimes with an ending."""
    syllables = rng.choice(3, p=(0.35, 0.45, 0.2)) + 1
    text = "".join(
        _one(ONSETS, rng) + _one(VOWELS, rng) + (_one(CODAS, rng) if rng.random() < 0.6 else "")
        for _ in range(syllables)
    )
    return text + _one(("", "", "", "", "s", "ed", "ing", "er", "ly", "al"), rng)


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _stray(rng: np.random.Generator) -> str:
    return _one(FILLERS, rng) if rng.random() < 0.5 else pseudo_word(rng)


def _often(choices: Sequence[str], rng: np.random.Generator) -> str:
    """One of the choices; in a quarter of the cases any other word."""
    return _one(choices, rng) if rng.random() < 0.75 else _stray(rng)


def _thing(thing: str, rng: np.random.Generator) -> str:
    name = ARTICLE.sub("", thing)
    kind = _often(KINDS, rng)
    ways = (thing, thing, thing, name, name, f"the {name}", f"one {name}", plural(thing), f"some {plural(thing)}",
            f"a {_often(ADJECTIVES, rng)} {name}", f"{name} {kind}", f"a {kind} of {thing}", f"{kind} of {thing}",
            f"{kind}: {name}", f"my {name}", f"this {name}")  # fmt: skip
    return _one(ways, rng)


def _around(thing: str, b: str, ab: str, rng: np.random.Generator) -> list[str]:
    """The thing and its background as parts between which other words may stand."""
    ground, evenly, link, stop = _often(GROUNDS, rng), _often(EVENLY, rng), _often(LINKS, rng), _one(STOPS, rng)
    with_noun = (f"{ab} {ground}", f"{ab} {ground}", f"the {b} {ground}", f"{b} {ground}", f"a {evenly} {b} {ground}",
                 f"{evenly} {b} {ground}", f"a {ground} of {b}", f"a {ground} in {b}", f"{ab}, {evenly} {ground}",
                 )  # fmt: skip
    bare = (b, b, f"{evenly} {b}", f"the {evenly} {b}", ab)
    told = (f"{ground}: {b}", f"the {ground} is {b}", f"make the {ground} {b}", f"the {ground} in {b}",
            f"{b} for the {ground}", f"{b} as the {ground}", f"{ground} {b}", f"all of the {ground} {b}")  # fmt: skip
    shape = rng.random()
    if shape < 0.40:
        return [thing, link, _one(with_noun if rng.random() < 0.65 else bare, rng)]
    if shape < 0.62:
        return [thing, stop, _one((*with_noun, *told, *told, b), rng)]
    if shape < 0.78:
        return [_one((*with_noun, *told), rng), stop, thing]
    if shape < 0.88:
        joint = _often(("with", "and", "for", "under", "holding", "that has", "carrying", "below"), rng)
        return [_one((*with_noun, b), rng), joint, thing]
    if shape < 0.95:
        return [thing, _stray(rng), _stray(rng), b]
    return [b, _stray(rng), _one((",", "", ":"), rng), _stray(rng), thing]
