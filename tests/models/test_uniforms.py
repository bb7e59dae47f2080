"""The random numbers of generation."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from models.uniforms import uniforms

MASK = 2**64 - 1


def philox_4x64_10(counter: int, key: int) -> list[int]:
    """Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, in whole numbers."""
    words = [counter >> shift & MASK for shift in (0, 64, 128, 192)]
    low, high = key & MASK, key >> 64
    for _ in range(10):
        first, second = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        words = [second >> 64 ^ words[1] ^ low, second & MASK, first >> 64 ^ words[3] ^ high, first & MASK]
        low, high = (low + 0x9E3779B97F4A7C15) & MASK, (high + 0xBB67AE8584CAA73B) & MASK
    return words


def test_the_numbers_are_those_of_the_scheme() -> None:
    """Written out once more, without numpy: a change here changes the images of every seed."""
    text = b"".join(
        len(part).to_bytes(8, "little") + part for part in (b"1", b"codes", b"7", "caf\u00e9".encode(), b"2")
    )
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16, person=b"vqbeam uniforms").digest(), "little")
    expected = [(philox_4x64_10(step + 1, key)[0] >> 11) / 2**53 for step in range(5)]
    assert uniforms(7, "caf\u00e9", 2, 5).tolist() == expected


def test_more_steps_change_none_of_the_first() -> None:
    assert np.array_equal(uniforms(0, "a", 0, 256)[:10], uniforms(0, "a", 0, 10))


def test_any_difference_gives_other_numbers() -> None:
    drawn = [
        uniforms(0, "a", 0, 4),
        uniforms(1, "a", 0, 4),
        uniforms(0, "b", 0, 4),
        uniforms(0, "a", 1, 4),
        uniforms(0, "a", 0, 4, stream="noise"),
        uniforms(-1, "a", 0, 4),
        uniforms(2**70, "a", 0, 4),
        uniforms(0, "", 0, 4),
        uniforms(0, "0a", 0, 4),
    ]
    assert not any(np.array_equal(*pair) for pair in itertools.combinations(drawn, 2))


@pytest.mark.parametrize("key", ["\ud800", "\x00", "\U0001f600" * 1000])
def test_any_text_is_a_key(key: str) -> None:
    assert uniforms(0, key, 0, 3).shape == (3,)


def test_numbers_are_even_over_0_to_1() -> None:
    drawn = np.concatenate([uniforms(0, str(key), 0, 100) for key in range(200)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, one in a thousand
