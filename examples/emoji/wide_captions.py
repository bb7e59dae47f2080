"""Captions in made-up wordings: they teach which words name the thing and which the background, whatever else is said.

A wording is put together at random from parts: what comes before the thing, how it is linked to the background, what
the background is called, what follows. Ordinary words, words that do not exist and parts of other names are strewn
between them: a word that the tokenizer does not know falls into pieces that names are made of, too. None of the words
that make the templates of `held_out_phrasings.py` new is among them (a test compares).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from examples.emoji.caption_variety import ARTICLE, plural
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.held_out_phrasings import TEMPLATES
from examples.emoji.wide_words import (
    ADJECTIVES,
    CALLS,
    CODAS,
    ENDINGS,
    EVENLY,
    FILLERS,
    GROUNDS,
    JOINTS,
    KINDS,
    LINKS,
    ONSETS,
    PLACES,
    VOWELS,
)

HELD_OUT = frozenset(word for template in TEMPLATES for word in re.findall(r"\w+", template.lower()))
STOPS = (", ", ", ", ", ", ". ", " - ", " / ", ": ", " ", " | ", "; ", " (")


@dataclass(frozen=True)
class Wordings:
    """Makes captions for things some of which have these names."""

    names: Sequence[str]

    @cached_property
    def words(self) -> list[str]:
        """Of the names, all."""
        return sorted({word for name in self.names for word in re.findall(r"[a-z]{3,}", name)} - BACKGROUNDS.keys())

    @cached_property
    def lone(self) -> list[str]:
        """Of the names, those that neither end one nor are in a held-out template."""
        return sorted({*self.words} - HELD_OUT - {name.split()[-1] for name in self.names})

    @cached_property
    def meaning(self) -> frozenset[str]:
        """What may not come about by chance."""
        return frozenset({*self.words, *self.names, *BACKGROUNDS}) | HELD_OUT

    def caption(self, thing: str, background: str | None, rng: np.random.Generator) -> str:
        """One made-up wording for a thing, which comes with its article if it has one, and a background or none."""
        named = self._thing(thing, rng)
        if background is None:
            parts = [named]
        else:
            article = "an" if background[0] in "aeiou" else "a"
            parts = self._around(named, background, f"{article} {background}", rng)
        if rng.random() < 0.35:
            parts.insert(0, one(CALLS, rng))
        ending = rng.random()
        if ending < 0.2:
            parts += [one(STOPS, rng), one(ENDINGS, rng)]
        elif ending < 0.35:
            parts += [one(STOPS, rng), *(self._stray(rng) for _ in range(int(rng.integers(1, 4))))]
        elif ending < 0.5:
            parts += [one(PLACES, rng), one(("the", "a", "its", ""), rng), self._stray(rng)]
        for _ in range(min(4, int(rng.geometric(0.5)) - 1)):
            parts.insert(int(rng.integers(len(parts) + 1)), self._stray(rng))
        text = re.sub(r"\s+([,.:;!)])", r"\1", " ".join(" ".join(parts).split()))
        return text + one(("", "", "", ".", "!", "?"), rng)

    def _stray(self, rng: np.random.Generator) -> str:
        """A word that says nothing here."""
        draw = rng.random()
        if draw < 0.35 or not self.lone:
            return one(FILLERS, rng)
        if draw < 0.55:
            return one(self.lone, rng)
        made = pseudo_word(rng) if draw < 0.75 else spliced(one(self.words, rng), one(self.words, rng), rng)
        return one(FILLERS, rng) if made in self.meaning else made

    def _often(self, choices: Sequence[str], rng: np.random.Generator) -> str:
        """One of the choices; in a third of the cases any other word."""
        return one(choices, rng) if rng.random() < 0.67 else self._stray(rng)

    def _thing(self, thing: str, rng: np.random.Generator) -> str:
        name = ARTICLE.sub("", thing)
        kind = self._often(KINDS, rng)
        ways = (thing, thing, thing, name, name, f"the {name}", f"one {name}", plural(thing), f"some {plural(thing)}",
                f"a {self._often(ADJECTIVES, rng)} {name}", f"{name} {kind}", f"a {kind} of {thing}",
                f"{kind} of {thing}",
                f"{kind}: {name}", f"{self._stray(rng)} {kind}: {name}", f"my {name}", f"this {name}")  # fmt: skip
        return one(ways, rng)

    def _around(self, thing: str, b: str, ab: str, rng: np.random.Generator) -> list[str]:
        """The thing and its background as parts between which other words may stand."""
        ground, evenly, link = (self._often(choices, rng) for choices in (GROUNDS, EVENLY, LINKS))
        with_noun = (f"{ab} {ground}", f"{ab} {ground}", f"the {b} {ground}", f"{b} {ground}",
                     f"a {evenly} {b} {ground}", f"{evenly} {b} {ground}", f"a {ground} of {b}", f"a {ground} in {b}",
                     f"{ab}, {evenly} {ground}")  # fmt: skip
        bare = (b, b, f"{evenly} {b}", f"the {evenly} {b}", ab)
        told = (f"{ground}: {b}", f"the {ground} is {b}", f"make the {ground} {b}", f"the {ground} in {b}",
                f"{b} for the {ground}", f"{b} as the {ground}", f"{ground} {b}",
                f"all of the {ground} {b}")  # fmt: skip
        shape = rng.random()
        if shape < 0.40:
            return [thing, link, one(with_noun if rng.random() < 0.65 else bare, rng)]
        if shape < 0.62:
            return [thing, one(STOPS, rng), one((*with_noun, *told, *told, b), rng)]
        if shape < 0.75:
            return [one((*with_noun, *told), rng), one(STOPS, rng), thing]
        if shape < 0.88:
            return [one((*with_noun, b), rng), self._often(JOINTS, rng), thing]
        if shape < 0.95:
            return [thing, self._stray(rng), self._stray(rng), b]
        return [b, self._stray(rng), one((",", "", ":"), rng), self._stray(rng), thing]


def pseudo_word(rng: np.random.Generator) -> str:
    """A word that could be English: one to three syllables, sometimes with an ending."""
    syllables = rng.choice(3, p=(0.35, 0.45, 0.2)) + 1
    text = "".join(
        one(ONSETS, rng) + one(VOWELS, rng) + (one(CODAS, rng) if rng.random() < 0.6 else "") for _ in range(syllables)
    )
    return text + one(("", "", "", "", "s", "ed", "ing", "er", "ly", "al"), rng)


def spliced(first: str, second: str, rng: np.random.Generator) -> str:
    """The beginning of one word and the end of another."""
    return first[: int(rng.integers(2, len(first) + 1))] + second[int(rng.integers(1, len(second))) :]


def one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
