from __future__ import annotations

from examples.emoji.combinations import BACKGROUNDS, HELD_OUT_PER_GLYPH, held_out_backgrounds, split_combinations

KEYS = [f"{0x1F300 + n:x}" for n in range(300)]


def test_every_pair_is_in_exactly_one_split() -> None:
    split = split_combinations(KEYS)
    train, held_out = set(map(tuple, split.train)), set(map(tuple, split.held_out))
    assert not train & held_out
    assert len(train) + len(held_out) == len(KEYS) * len(BACKGROUNDS)


def test_at_least_a_tenth_is_held_out_and_every_glyph_is_trained_on() -> None:
    split = split_combinations(KEYS)
    assert len(split.held_out) >= 0.1 * (len(split.train) + len(split.held_out))
    assert set(split.train[:, 0]) == set(split.held_out[:, 0]) == set(range(len(KEYS)))


def test_every_background_is_held_out_about_equally_often() -> None:
    held_out = split_combinations(KEYS).held_out[:, 1].tolist()
    expected = len(KEYS) * HELD_OUT_PER_GLYPH / len(BACKGROUNDS)
    assert all(0.6 * expected < held_out.count(b) < 1.4 * expected for b in range(len(BACKGROUNDS)))


def test_a_glyph_keeps_its_split_when_others_come_or_go() -> None:
    names = list(BACKGROUNDS)
    for keys in (KEYS, KEYS[5:6]):
        g = keys.index(KEYS[5])
        hidden = {names[b] for glyph, b in split_combinations(keys).held_out if glyph == g}
        assert hidden == set(held_out_backgrounds(KEYS[5]))
