"""What templates of captions say: their words, and the order of thing, background and marks."""

from __future__ import annotations

import re

from examples.emoji import caption_variety

FIXED = (caption_variety.CANONICAL, *caption_variety.VARIANTS, *caption_variety.NO_BACKGROUND)
TRIVIAL = {"a", "an", "the", "on", "of", "in", "with", "for", "and", "one", "some"}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"\{\w+\}", " ", text.lower()))


def skeleton(template: str) -> str:
    """Thing, colour, places and marks in order: "On {b}: {a}" and "on {b}, {n}" -> "on B , T"."""
    text = re.sub(r"\{(a|n|p)\}", " T ", re.sub(r"\{(b|ab)\}", " B ", re.sub(r"[:;.\-()]", ",", template)))
    return " ".join(word for word in re.findall(r"\w+|,", text) if word not in {"a", "an", "the", "one"})
