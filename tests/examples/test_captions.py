from __future__ import annotations

import pytest

from examples.emoji.captions import caption, clean_name, single_code_point_names, with_article


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        (":red_apple:", "red apple"),
        (":rocket:", "rocket"),
        (":Japanese_“reserved”_button:", "Japanese “reserved” button"),
        (":man\u2019s_shoe:", "man's shoe"),
    ],
)
def test_names_lose_colons_and_underscores(alias: str, name: str) -> None:
    assert clean_name(alias) == name


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("rocket", "a rocket"),
        ("red apple", "a red apple"),
        ("owl", "an owl"),
        ("hourglass done", "an hourglass done"),
        ("unicorn", "a unicorn"),
        ("x-ray", "an x-ray"),
        ("grapes", "grapes"),
        ("glass of milk", "a glass of milk"),
        ("cactus", "a cactus"),
        ("fog", "fog"),
        ("house with garden", "a house with garden"),
        ("cat with tears of joy", "a cat with tears of joy"),
        ("person lifting weights", "a person lifting weights"),
        ("men holding hands", "men holding hands"),
        ("three o'clock", "three o'clock"),
    ],
)
def test_the_article_follows_sound_and_number(name: str, phrase: str) -> None:
    assert with_article(name) == phrase


def test_a_caption_names_glyph_and_background() -> None:
    assert caption("rocket", "blue") == "a rocket on a blue background"
    assert caption("owl", "orange") == "an owl on an orange background"


def test_the_emoji_package_names_every_single_code_point() -> None:
    pytest.importorskip("emoji", reason="names come from the optional package emoji")
    names = single_code_point_names()
    assert names["\U0001f680"] == "rocket"
    assert all(len(text) == 1 and name and "_" not in name and ":" not in name for text, name in names.items())
    assert len(names) > 1300
