from __future__ import annotations

import numpy as np
import pytest

from models.vqgan import neighbours
from models.vqgan.neighbours import nearest_codes, spread, trained_codes


def codebook(codes: int = 50, width: int = 4) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(codes, width)).astype(np.float32)


def test_neighbours_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 16)  # three whole blocks and a rest
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
