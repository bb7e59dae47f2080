from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from examples.emoji import wide_words
from examples.emoji.caption_variety import all_captions, plural
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.held_out_phrasings import NEW_ORDER, TEMPLATES
from examples.emoji.training_captions import clear_pairs, training_caption, wordings_of
from examples.emoji.wide_captions import pseudo_word, spliced
from tests.examples.phrasing_words import FIXED, TRIVIAL, skeleton, words
from tests.examples.synthetic_glyphs import synthetic_glyphs

LISTS = {name: words_of for name, words_of in vars(wide_words).items() if name.isupper()}
SAID = {word for listed in LISTS.values() for text in listed for word in words(text)}
DRAWN = 3000
WORDINGS = wordings_of(["a red apple", "a sun behind cloud", "an owl", "grapes", "a fox", "a wry smile", "a rocket"])


def drawn(thing: str, background: str | None, count: int = DRAWN) -> list[str]:
    rng = np.random.default_rng(1)
    return [WORDINGS.caption(thing, background, rng) for _ in range(count)]


@pytest.mark.parametrize("template", [template for template in TEMPLATES if template not in NEW_ORDER])
def test_a_held_out_template_has_a_word_that_training_never_says(template: str) -> None:
    assert set(words(template)) - TRIVIAL - SAID - {word for text in FIXED for word in words(text)}


@pytest.mark.parametrize("template", NEW_ORDER)
def test_a_held_out_order_is_never_made_up(template: str) -> None:
    made = {skeleton(text.replace("grapes", "{n}").replace("blue", "{b}")) for text in drawn("grapes", "blue", 20_000)}
    assert skeleton("{n} on {b}") in made
    assert skeleton(template) not in made


@pytest.mark.parametrize(
    ("thing", "background"), [("a red apple", "blue"), ("an owl", "orange"), ("grapes", "white"), ("a fox", "grey")]
)
def test_a_made_up_caption_names_the_thing_and_its_background_once(thing: str, background: str) -> None:
    for text in drawn(thing, background, 500):
        name = re.sub("^an? ", "", thing)
        named = re.findall(rf"\b(?:{name}|{plural(thing)})\b", text)
        assert named, text
        assert [word for word in re.findall(r"\w+", text.replace(name, "")) if word in BACKGROUNDS] == [background]


def test_one_without_background_names_no_colour() -> None:
    for text in drawn("an owl", None, 500):
        assert "owl" in text
        assert not set(re.findall(r"\w+", text)) & set(BACKGROUNDS)


def test_made_up_captions_hardly_repeat() -> None:
    assert len(set(drawn("a fox", "blue"))) > 0.95 * DRAWN


def test_captions_come_from_all_sources_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    fixed = all_captions("a rocket", "blue")
    said = [training_caption("a rocket", "blue", rng, WORDINGS, clear=True) for _ in range(DRAWN)]
    counts = Counter(text for text, _ in said)
    assert 0.28 < counts["a rocket on a blue background"] / DRAWN < 0.34
    assert set(fixed) <= set(counts)
    assert 0.45 < sum(text not in fixed for text, _ in said) / DRAWN < 0.6
    for text, named in said:
        assert ("blue" in text.split() or "blue" in re.findall(r"\w+", text)) == named
    assert 0.10 < sum(not named for _, named in said) / DRAWN < 0.14


def test_coloured_things_often_come_without_a_background() -> None:
    rng = np.random.default_rng(0)
    said = [training_caption("a red apple", "blue", rng, WORDINGS, clear=True) for _ in range(DRAWN)]
    assert 0.27 < sum(not named for _, named in said) / DRAWN < 0.33


def test_words_of_other_names_are_strewn_but_no_names_and_none_of_held_out_templates() -> None:
    assert WORDINGS.lone == ["sun", "wry"]
    assert "behind" in WORDINGS.words
    said = {word for text in drawn("a rocket", "blue") for word in re.findall(r"\w+", text)}
    assert {"sun", "wry"} <= said
    assert not {"owl", "fox", "grapes", "behind"} & said


def test_a_spliced_word_begins_and_ends_as_two_words_do() -> None:
    rng = np.random.default_rng(0)
    made = {spliced("rocket", "apple", rng) for _ in range(500)}
    assert {"rocketle", "ropple", "rocke"} <= made
    assert all(word.startswith("ro") and word.endswith("e") for word in made)


def test_a_thing_that_is_hard_to_see_has_its_background_named() -> None:
    rng = np.random.default_rng(0)
    assert all(training_caption("a lemon", "yellow", rng, WORDINGS, clear=False)[1] for _ in range(500))


def test_clear_are_the_backgrounds_that_show_a_thing() -> None:
    clear = clear_pairs(synthetic_glyphs())
    assert ("a yellow disc", "black") in clear
    assert ("a yellow disc", "yellow") not in clear


def test_made_up_words_are_many_and_no_colours() -> None:
    rng = np.random.default_rng(0)
    made = {pseudo_word(rng) for _ in range(DRAWN)}
    assert len(made) > 0.8 * DRAWN
    assert not made & set(BACKGROUNDS)


@pytest.mark.parametrize("name", LISTS)
def test_word_lists_have_no_colour_no_gap_and_nothing_twice(name: str) -> None:
    listed = LISTS[name]
    assert len(set(listed)) == len(listed)
    assert all(listed)
    assert not {word for text in listed for word in words(text)} & set(BACKGROUNDS)
