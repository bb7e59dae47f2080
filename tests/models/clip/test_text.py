"""Captions are cleaned as open_clip does it, and transformers before version 5 with ftfy."""

from __future__ import annotations

import time

import pytest

from models.clip.text import cleaned

# What open_clip 2.32's `whitespace_clean(basic_clean(text))` gives.
OPEN_CLIP = {
    "tom &amp; jerry": "tom & jerry",
    "tom &amp;amp; jerry": "tom & jerry",
    "a dog\u2019s \u201cbone\u201d": 'a dog\'s "bone"',
    "caf\u00c3\u00a9": "caf\u00e9",
    "  many\n\t blanks\u00a0here ": "many blanks here",
    "1 &lt; 2": "1 < 2",
    "plain": "plain",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), OPEN_CLIP.items())
def test_as_open_clip_cleans(text: str, expected: str) -> None:
    assert cleaned(text) == expected


@pytest.mark.parametrize("text", ["&amp;" * 20_000, "&" + "amp;" * 20_000, "\u00c3" * 60_000, "<" * 60_000])
def test_a_hostile_caption_costs_little(text: str) -> None:
    start = time.process_time()
    cleaned(text)
    assert time.process_time() - start < 2
