from __future__ import annotations

import json
import logging
import math
import pickle
import time
from collections import Counter
from pathlib import Path

import pytest

from models.bart.normalizer import EXACT_LENGTH, TextNormalizer, read_word_costs, split_hashtag
from models.errors import CheckpointError
from tests.support.paths import GOLDEN

TEXT = GOLDEN / "text"
MEGABYTE = 1_000_000


def pairs(name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (TEXT / name).read_text(encoding="utf-8").splitlines()]
    return [(row["in"], row["out"]) for row in rows]


@pytest.fixture(scope="module")
def normalizer() -> TextNormalizer:
    return TextNormalizer(read_word_costs(TEXT / "hashtag_words.txt"))


@pytest.mark.parametrize(("text", "expected"), pairs("normalizer.jsonl"))
def test_captions_come_out_as_from_the_reference(normalizer: TextNormalizer, text: str, expected: str) -> None:
    assert normalizer(text, "k") == expected


def test_random_runs_of_awkward_characters_come_out_as_from_the_reference(normalizer: TextNormalizer) -> None:
    rows = pairs("normalizer_random.jsonl")
    assert len(rows) == 300
    assert [normalizer(text, "k") for text, _ in rows] == [expected for _, expected in rows]


def test_a_person_is_the_same_for_the_same_key_only(normalizer: TextNormalizer) -> None:
    text = "a <person> on a bench. <person> in a tree"
    drawn = [normalizer(text, str(key)) for key in range(20)]
    assert drawn == [normalizer(text, str(key)) for key in range(20)]
    assert len(set(drawn)) > 3


def test_persons_are_drawn_as_often_as_the_words_are_used(normalizer: TextNormalizer) -> None:
    drawn = Counter(normalizer("<person>", str(key)).strip() for key in range(4000))
    total = 282265 + 121194 + 12219
    for words, uses in {"a person": 282265, "someone": 121194, "somebody": 12219}.items():
        share = uses / total
        assert drawn[words] == pytest.approx(4000 * share, abs=4 * math.sqrt(4000 * share * (1 - share)))


def test_the_persons_of_one_text_are_drawn_apart(normalizer: TextNormalizer) -> None:
    texts = [normalizer("<person> x <person>", str(key)).split(" x ") for key in range(50)]
    assert any(first.strip() != second.strip() for first, second in texts)


def test_neighbouring_persons_are_people(normalizer: TextNormalizer) -> None:
    assert normalizer("<person>,and <person> andand,\t<person> or so", "k") == " people or so"


def test_without_a_word_list_hashtags_stay_whole_and_one_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    normalizer = TextNormalizer()
    with caplog.at_level(logging.WARNING, logger="vqbeam"):
        assert normalizer("no tag here", "k") == " no tag here"
        assert not caplog.records
        assert normalizer("#NewYork by a#sky", "k") == " newyork by asky"
        assert normalizer("#snake_case", "k") == " snake case"
    assert [record.name for record in caplog.records] == ["vqbeam"]
    assert "enwiki-words-frequency.txt" in caplog.text


def test_word_lists_are_read_with_counts_and_without(tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("the\nnew\nyork\n", encoding="utf-8")
    (tmp_path / "counted.txt").write_text("the 100\r\nnew\t30\nyork 2 \n\n", encoding="utf-8")
    costs = read_word_costs(tmp_path / "bare.txt")
    assert costs == {"the": 0.0, "new": math.log(2), "york": math.log(3)}
    assert read_word_costs(tmp_path / "counted.txt") == costs


@pytest.mark.parametrize("content", [b"", b"\n \n", b"the\n\xff\xfe\n"])
def test_a_word_list_without_readable_words_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"words\.txt"):
        read_word_costs(tmp_path / "words.txt")


def test_a_hashtag_is_divided_at_the_least_cost_and_numbers_are_joined() -> None:
    costs = {"in": 1.0, "to": 1.0, "into": 2.5, "2": 3.0, "0": 3.0, "x": 4.0}
    assert split_hashtag("intox", costs, [1, 2, 4]) == ["in", "to", "x"]
    assert split_hashtag("intox", {**costs, "into": 1.5}, [1, 2, 4]) == ["into", "x"]
    assert split_hashtag("in2020", costs, [1, 2, 4]) == ["in", "2020"]
    assert split_hashtag("qto", costs, [1, 2, 4]) == ["q", "t", "o"]


def test_a_normalizer_works_after_pickling(normalizer: TextNormalizer) -> None:
    copy = pickle.loads(pickle.dumps(normalizer))
    assert copy("#newyork <person>", "7") == normalizer("#newyork <person>", "7")


@pytest.mark.parametrize(
    "text",
    ["\ud83d", "\ude00\ud83d", "a\x00b\x1bc", "\x1b[31mred", "&#xD800;&#0;", "\ufdd0\U0010ffff", "\x1c\x85\u2028"],
)
def test_characters_that_cannot_be_drawn_do_not_stop_a_text(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer(f"a cat {text} on a mat", "\ud800").isascii()


@pytest.mark.parametrize("text", ["", " \t\n", "???", ",,,", "[1]", "<b></b>", "http://a.b", "\u200b", "#", "\x00"])
def test_texts_of_which_nothing_is_left_become_one_space(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer(text, "k") == " "


def test_a_long_text_is_normalised_like_its_parts(normalizer: TextNormalizer) -> None:
    part = "A café 😍 &amp; 1,000 naïve cats "
    many = 2 * EXACT_LENGTH // len(part)
    expected = normalizer(part * 3, "k").split(" a cafe")
    assert normalizer(part * many, "k") == " a cafe" + (" a cafe".join([expected[1]] * (many - 1) + [expected[-1]]))


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        ("", "an avocado armchair ", ""),
        ("", " ", "x"),
        ("", "é\n", ""),
        ("", '" ', "x"),
        ("", ", ", "x"),
        ("<person>", " ", "x"),
        ("<person>", " and", "x"),
        ("", "<", ""),
        ("", "[1", ""),
        ("&", "amp;", ""),
        ("&#", "1", ""),
        ("", "👨\u200d👩\u200d", ""),
        ("a", "\u0323\u0301", ""),
        ("#", "thecat", ""),
        ("", "#the ", ""),
        ("", "ÃƒÂ", ""),
    ],
)
def test_a_megabyte_of_anything_takes_about_a_second(
    normalizer: TextNormalizer, start: str, unit: str, end: str
) -> None:
    text = start + unit * (MEGABYTE // len(unit.encode())) + end
    begun = time.process_time()
    normalizer(text, "k")
    assert time.process_time() - begun < 20  # a pattern that is quadratic in its input takes minutes
