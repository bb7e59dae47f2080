"""Split a hashtag into its words by how frequent they are, for `models/bart/normalizer.py`.

The likeliest division is found by dynamic programming over a list of words, most frequent first: a word's cost is the
logarithm of its rank, as if frequencies followed Zipf's law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import CheckpointError

WORD_LIST_NAME = "enwiki-words-frequency.txt"  # beside the published weights of dalle-mini


def read_word_costs(path: Path) -> dict[str, float]:
    """The cost of each word of a list: a word a line, most frequent first; what follows the word, a count, is ignored.

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

    Where no words of the list make up the beginning of the tag, its letters stand alone. Neighbouring numbers are
    joined again. Takes time in proportion to the length of the tag times the number of lengths.
    """
    best: list[tuple[float, int]] = [
        (0.0, 0)
    ]  # for each end in the tag: the least cost up to it, its last word's length
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
