"""The laws of vary's noise, by statistics at fixed seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from models.vqgan import variations
from models.vqgan.variations import (
    gaussians,
    kept_rows,
    nearest_codes,
    neighbour_count,
    redrawn,
    spread,
    trained_codes,
)

K, REACH, LENGTH = 64, 16, 4096
NEIGHBOURS = (np.arange(K)[:, None] + np.arange(1, REACH + 1)).astype(np.int32) % K  # of code c: c + 1, c + 2, ...
CODES = np.arange(LENGTH) % K


def varied(strength: float, seed: int = 0, key: str = "a", sample: int = 0) -> np.ndarray:
    return redrawn(CODES, NEIGHBOURS, strength, seed, key, sample)


def ranks(strength: float) -> np.ndarray:
    """Of the codes that changed, from 1."""
    steps = (varied(strength) - CODES) % K
    return steps[steps > 0]


def test_the_noise_is_standard_normal() -> None:
    numbers = gaussians(0, "a", 0, 20_000)
    assert numbers.dtype == np.float64
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert stats.kstest(numbers**2, stats.chi2(1).cdf).pvalue > 0.01


def test_every_uniform_has_a_finite_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([0.0, 2.0**-53, 1 - 2.0**-53])
    monkeypatch.setattr(variations, "uniforms", lambda *_, **__: extremes)
    low, second, high = gaussians(0, "a", 0, 3)
    assert -9 < low < second < -8
    assert 8 < high < 9


def test_seeds_keys_samples_and_images_have_noise_of_their_own() -> None:
    rows = [gaussians(*which, 1000) for which in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))]
    assert all(abs(np.corrcoef(one, other)[0, 1]) < 0.1 for one, other in itertools.combinations(rows, 2))
    np.testing.assert_array_equal(rows[0], gaussians(0, "a", 0, 1000))
    np.testing.assert_array_equal(rows[0][:10], gaussians(0, "a", 0, 10))


def test_strength_is_the_share_of_codes_that_change() -> None:
    for strength in (0.1, 0.25, 0.5, 0.9):
        assert np.mean(varied(strength) != CODES) == pytest.approx(strength, abs=0.02)
    assert varied(0.3).dtype == np.int32


def test_at_strength_0_no_code_changes_and_at_1_every_one() -> None:
    np.testing.assert_array_equal(varied(0), CODES)
    assert (varied(1) != CODES).all()


def test_what_a_low_strength_changes_a_higher_one_changes_too() -> None:
    changed = [varied(strength) != CODES for strength in (0.05, 0.1, 0.3, 0.6, 1)]
    for low, high in itertools.pairwise(changed):
        assert high[low].all()
        assert high.sum() > low.sum()


def test_near_neighbours_are_drawn_more_often_and_all_in_reach_at_strength_1() -> None:
    counts = np.bincount(ranks(1), minlength=REACH + 1)[1:]
    assert (counts > 0).all()
    np.testing.assert_allclose(counts.cumsum() / LENGTH, np.sqrt(np.arange(1, REACH + 1) / REACH), atol=0.03)


def test_codes_go_further_the_stronger_the_noise() -> None:
    strengths = (0.1, 0.3, 0.6, 1)
    means = [ranks(strength).mean() for strength in strengths]
    assert means == sorted(means)
    assert all(ranks(strength).max() <= max(1, np.ceil(strength * REACH)) for strength in strengths)


def test_samples_of_one_image_change_at_other_positions() -> None:
    first, second = (varied(0.5, sample=sample) != CODES for sample in (0, 1))
    assert np.mean(first & second) == pytest.approx(0.25, abs=0.03)


def test_a_code_has_at_least_one_neighbour_and_never_itself() -> None:
    assert [neighbour_count(codes) for codes in (2, 7, 32, 1024, 16384)] == [1, 1, 4, 128, 512]


def test_rows_are_kept_by_strength() -> None:
    assert [kept_rows(strength, 16) for strength in (0, 0.25, 0.5, 1)] == [16, 12, 8, 0]
    assert [kept_rows(0.1 * tenths, 10) for tenths in range(11)] == list(range(10, -1, -1))
    assert kept_rows(0.001, 16) == 15, "some noise leaves not everything as it was"
    assert kept_rows(0.999, 16) == 0


def codebook(codes: int = 50, width: int = 4) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(codes, width)).astype(np.float32)


def test_neighbours_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variations, "BLOCK", 16)  # three whole blocks and a rest
    book = codebook().astype(np.float64)
    distances = np.square(book[:, None] - book).sum(2)
    np.fill_diagonal(distances, np.inf)
    found = nearest_codes(codebook(), 7)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, distances.argsort(1)[:, :7])


def test_equal_distances_go_by_id_and_no_code_is_its_own_neighbour() -> None:
    line = np.array([[1.0], [3], [5], [7], [5]], np.float32)
    assert nearest_codes(line, 4).tolist() == [
        [1, 2, 4, 3],
        [0, 2, 4, 3],
        [4, 1, 3, 0],
        [2, 4, 1, 0],
        [2, 1, 3, 0],
    ]


@pytest.mark.parametrize("codes", [40, 3000])
def test_of_equal_distances_at_the_border_the_lowest_ids_are_taken(codes: int) -> None:
    """A grid of whole numbers, shuffled: most distances are those of many codes, also of the last one taken."""
    book = np.random.default_rng(0).integers(1, 6, (codes, 2)).astype(np.float32)
    distances = np.square(book[:, None].astype(np.float64) - book).sum(2)
    np.fill_diagonal(distances, np.inf)
    expected = distances.argsort(1, kind="stable")
    for count in (1, 7, 30):
        np.testing.assert_array_equal(nearest_codes(book, count), expected[:, :count])


def test_codes_that_training_has_not_moved_are_nobodys_neighbours() -> None:
    book = codebook()
    book[10:45] = np.random.default_rng(0).uniform(-1 / 50, 1 / 50, (35, 4))
    assert trained_codes(book).tolist() == [*range(10), *range(45, 50)]
    found = nearest_codes(book, 14)
    assert set(found[20].tolist()) < set(trained_codes(book).tolist())
    assert sorted(found[0].tolist()) == [*range(1, 10), *range(45, 50)]


def test_a_codebook_as_it_was_drawn_counts_as_trained() -> None:
    book = np.random.default_rng(0).uniform(-1 / 50, 1 / 50, (50, 4)).astype(np.float32)
    assert len(trained_codes(book)) == 50


def test_the_spread_is_that_of_the_trained_codes() -> None:
    book = codebook(2000) * 3 + 5
    assert spread(book) == pytest.approx(3, rel=0.03)
    mostly_dead = np.concatenate([book, np.zeros((20_000, 4), np.float32)])
    assert spread(mostly_dead) == pytest.approx(spread(book))
