"""CMMD against all pairs of its kernel."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.outputs import cmmd


def unit(rows: int, size: int, seed: int, about: float = 0.0) -> np.ndarray:
    """float32 [rows, size], vectors of length 1."""
    found = np.random.default_rng(seed).normal(size=(rows, size)) + about * np.eye(size)[0]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def all_pairs(one: np.ndarray, other: np.ndarray) -> float:
    """CMMD by its definition."""

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        squares = np.square(x[:, None].astype(np.float64) - y[None].astype(np.float64)).sum(-1)
        return float(np.exp(-squares / (2 * 10**2)).mean())

    return 1000 * (mean(one, one) + mean(other, other) - 2 * mean(one, other))


def moments(vectors: np.ndarray, step: int) -> cmmd.Moments:
    gatherer = cmmd.Gatherer(vectors.shape[1])
    for start in range(0, len(vectors), step):
        gatherer.add(vectors[start : start + step])
    assert gatherer.rows == len(vectors)
    return gatherer.moments()


@pytest.mark.parametrize("about", [0.0, 1.0, 5.0, 50.0])
def test_it_is_that_of_all_pairs(about: float) -> None:
    one, other = unit(90, 24, 1), unit(70, 24, 2, about)
    expected = all_pairs(one, other)
    found = cmmd.cmmd(moments(one, 13), moments(other, 50))
    assert 0 <= expected - found < 0.0007
    assert found == pytest.approx(expected, abs=2e-4)


def test_the_worst_case_is_within_what_is_said() -> None:
    one, other = np.eye(4, dtype=np.float32)[:1], -np.eye(4, dtype=np.float32)[:1]
    assert 0 <= all_pairs(one, other) - cmmd.cmmd(moments(one, 1), moments(other, 1)) < 0.0007


def test_equal_sets_are_not_apart_in_any_order() -> None:
    one = unit(50, 8, 3)
    assert cmmd.cmmd(moments(one, 50), moments(one, 7)) == 0
    assert cmmd.cmmd(moments(one, 50), moments(one[::-1], 50)) < 1e-12


def test_samples_of_one_distribution_are_as_far_apart_as_the_floor_says() -> None:
    found = [cmmd.cmmd(moments(unit(200, 512, seed), 200), moments(unit(200, 512, seed + 50), 200)) for seed in (1, 2)]
    assert cmmd.floor(200) == 0.1
    assert found == pytest.approx([0.1, 0.1], rel=0.25)


def test_sums_do_not_depend_on_how_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmmd, "BLOCK", 16)
    vectors = unit(100, 8, 4)
    whole = moments(vectors, 100)
    for step in (1, 7, 16, 33):
        part = moments(vectors, step)
        np.testing.assert_array_equal(part.first, whole.first)
        np.testing.assert_array_equal(part.second, whole.second)


def test_no_row_adds_to_what_is_held() -> None:
    gatherer = cmmd.Gatherer(8)
    for seed in range(5):
        gatherer.add(unit(1000, 8, seed))
        assert len(gatherer._waiting) < cmmd.BLOCK
