"""Turns a prompt into the plain English text that DALL·E mini was trained on, before it is cut to pieces.

The rules and their order are those of dalle-mini's normaliser, written so that time grows no faster than the length of
the text. The reference draws at random who `<person>` is; here the key of the row decides.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import emoji
import ftfy
from unidecode import unidecode

from models.errors import CheckpointError
from models.weights.tokenizer_files import WORD_LIST_NAME

logger = logging.getLogger("vqbeam")

EXACT_LENGTH = 2048  # characters: up to here every rule reads the text as the reference does
PIECE_LENGTH = 512  # longer texts are decoded in pieces, as ftfy and emoji can take time quadratic in the length
HASHTAG_BUDGET = 4096  # characters of hashtags that are split in one text; later ones are kept whole

PIECE = re.compile(rf".{{1,{PIECE_LENGTH}}}(?=\s|\Z)|.{{1,{PIECE_LENGTH}}}", re.DOTALL)

# Who `<person>` is, each with the sum of uses in Wikipedia so far: 282265, 121194 and 12219 times.
PERSONS = (("a person", 282265), ("someone", 403459), ("somebody", 415678))
PERSON = re.compile("<person>")
PEOPLE = re.compile(r"<person>(?:[,\s]*(?:(?:and)+[,\s]*)?<person>)+")

# Dots, quotes and slashes that stay while others become commas; in letters, so that they hold words together.
DOT, QUOTE, SLASH = (f"xtokx{name}xtokx" for name in ("dot", "quote", "slash"))

BEFORE_HASHTAGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\A\s*\[\d+\]", ""),  # a reference of Wikipedia, at either end
        (r"\[\d+\]\s*\Z", ""),
        (r"<[^<][^<>]*>", " "),  # markup
        (r"http\S+", ""),
        (r"(\d),(\d{3})", r"\1\2"),  # thousands; again, as neighbours share digits
        (r"(\d),(\d{3})", r"\1\2"),
        (r"(\w)\.(\w)", rf"\1{DOT}\2"),
        (r"'(?=(?:[stdm]|ll|re|ve)\b)", QUOTE),
        (r"(\d)/(\d)", rf"\1{SLASH}\2"),
        (r"(\w)-(\w)", r"\1 \2"),
        (r"([%&/$*])", r" \1 "),
    )
)
HASHTAG = re.compile(r"#(\w+)")
COMMAS = str.maketrans("()[].,|:;?!=+~-/{}", "," * 18)
SPACES = str.maketrans("_#\\", "   ")
QUOTES = str.maketrans(dict.fromkeys("'\"`", ' " '))
REPEATS = re.compile(r"(\D)\1{3,}")  # four or more: the reference spares the Roman VIII
# White space is single when these two are reached: with runs of it before a mark they would be quadratic.
QUOTE_RUN = re.compile(' ?"[ "]*')
COMMA_RUN = re.compile(" ?,[ ,]*")


class TextNormalizer:
    """dalle-mini's `TextNormalizer`, with the word list that splits hashtags.

    `words` gives each word's cost (`read_word_costs`). Without it hashtags lose their `#` and stay whole, with a
    warning about the first one. Results equal the reference's for texts of up to `EXACT_LENGTH` characters; longer ones
    are cut into pieces of `PIECE_LENGTH` before ftfy, HTML entities and emoji are resolved.
    """

    def __init__(self, words: Mapping[str, float] | None = None) -> None:
        self.words = dict(words or {})
        self.lengths = sorted({len(word) for word in self.words})
        self.warned = False

    def __call__(self, text: str, key: str) -> str:
        """The normal form of `text`, which starts with a space; only that space if nothing is left.

        The `key` of the row alone decides whom each `<person>` becomes.
        """
        text = _decode(text).lower()
        text = _name_persons(text, key)
        for pattern, replacement in BEFORE_HASHTAGS:
            text = pattern.sub(replacement, text)
        text = self._expand_hashtags(text)
        text = text.translate(SPACES).translate(QUOTES).translate(COMMAS)
        text = text.replace(DOT, ".").replace(QUOTE, "'").replace(SLASH, "/")
        text = REPEATS.sub(r"\1", text)
        text = " ".join(text.split())
        text = COMMA_RUN.sub(", ", QUOTE_RUN.sub(' " ', text))
        text = " ".join(text.split())
        return f" {text.removesuffix(',').removeprefix(',').strip()}"

    def _expand_hashtags(self, text: str) -> str:
        """Hashtags as their words, without the `#`."""
        if not self.words:
            if "#" in text and not self.warned:
                self.warned = True
                logger.warning("no %s beside the model: hashtags lose their # and stay whole", WORD_LIST_NAME)
            return HASHTAG.sub(r"\1", text)
        budget = HASHTAG_BUDGET

        def words_of(found: re.Match[str]) -> str:
            nonlocal budget
            budget -= len(found[1])
            if budget < 0:
                return found[1]
            parts = found[1].split("_")
            return " ".join(word for part in parts for word in split_hashtag(part, self.words, self.lengths))

        return HASHTAG.sub(words_of, text)


def _decode(text: str) -> str:
    """ASCII: mojibake undone, HTML entities resolved, emoji named, other scripts spelt in Latin letters."""
    if len(text) <= EXACT_LENGTH:
        return _to_ascii(ftfy.fix_text(text))
    # Entities inside entities cost ftfy a pass each; two levels of them are resolved below in any case.
    return "".join(_to_ascii(ftfy.fix_text_segment(piece, unescape_html=False)) for piece in PIECE.findall(text))


def _to_ascii(text: str) -> str:
    text = html.unescape(html.unescape(text))
    return text if text.isascii() else unidecode(emoji.demojize(text))


def _name_persons(text: str, key: str) -> str:
    """Neighbouring `<person>`s become "people"; each other one is drawn from `PERSONS`."""
    numbers = itertools.count()

    def draw(_: re.Match[str]) -> str:
        last, total = PERSONS[-1]
        mark = _uniform(key, next(numbers)) * total
        return f" {next((words for words, end in PERSONS if mark < end), last)} "

    return PERSON.sub(draw, PEOPLE.sub(" people ", text))


def _uniform(key: str, index: int) -> float:
    """A number in [0, 1) that the key of a row and an index decide."""
    parts = (b"person", key.encode("utf-8", "surrogatepass"), str(index).encode())
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return (int.from_bytes(digest.digest(), "little") >> 11) / 2.0**53


def read_word_costs(path: Path) -> dict[str, float]:
    """The cost of each word of a list: a word a line, most frequent first; a count after the word is ignored.

    Raises `CheckpointError` for a file that is not UTF-8 or holds no word.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text ({error}); copy the word list again") from error
    costs = {line.split()[0]: math.log(rank) for rank, line in enumerate(filter(str.strip, lines), 1)}
    if not costs:
        raise CheckpointError(f"{path}: holds no word; copy the word list again, or remove it to keep hashtags whole")
    return costs


def split_hashtag(tag: str, costs: Mapping[str, float], lengths: Sequence[int]) -> list[str]:
    """The words of `tag`, which is lower case; `lengths` are those that words have, ascending.

    The likeliest division is found by dynamic programming: a word's cost is the logarithm of its rank, as if
    frequencies followed Zipf's law. If no words of the list make up the beginning of the tag, it is cut into letters.
    Neighbouring numbers are joined again. The time is proportional to the length of the tag times the number of
    lengths.
    """
    # For each end in the tag: the least cost up to it, and the length of its last word.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(tag) + 1):
        cheapest, last = math.inf, 1
        for length in lengths:
            if length > end:
                break
            cost = best[end - length][0] + costs.get(tag[end - length : end], math.inf)
            if cost < cheapest:
                cheapest, last = cost, length
        best.append((cheapest, last))
    words: list[str] = []
    end = len(tag)
    while end:
        start = end - best[end][1]
        word = tag[start:end]
        if words and word[-1].isdigit() and words[-1][0].isdigit():
            words[-1] = word + words[-1]
        else:
            words.append(word)
        end = start
    return words[::-1]
