"""Each rule against a plain computation in float64, with ties, blocks and large codebooks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from models import quantiser
from models.quantiser import SEARCHES, LevelQuantiser, SignQuantiser, VectorQuantiser

SCORES = {
    "nearest": lambda latents, rows: torch.cdist(latents, rows),
    "cosine": lambda latents, rows: -latents @ (rows / rows.norm(dim=1, keepdim=True)).T,
    "dot": lambda latents, rows: -latents @ rows.T,
}


def filled(search: str, codes: int = 100, width: int = 8, seed: int = 0) -> VectorQuantiser:
    """Rows of unequal length."""
    random = torch.Generator().manual_seed(seed)
    made = VectorQuantiser(codes, width, search).requires_grad_(False)
    rows = torch.randn(codes, width, generator=random)
    made.embedding.weight.copy_(rows * torch.rand(codes, 1, generator=random).mul(3).exp())
    return made


def latents(count: int = 257, width: int = 8) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1)) * 3


def brute_force(search: str, points: Tensor, rows: Tensor) -> Tensor:
    return SCORES[search](points.double(), rows.double()).argmin(1)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("codes", [100, 128, 1000, 1024])
def test_the_best_row_is_found(search: str, codes: int) -> None:
    made, points = filled(search, codes), latents()
    assert torch.equal(made(points), brute_force(search, points, made.embedding.weight))


def test_the_rules_differ_on_rows_of_unequal_length() -> None:
    found = [filled(search)(latents()) for search in SEARCHES]
    for one, other in itertools.combinations(found, 2):
        assert (one != other).float().mean() > 0.2


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("rows", "cells"), [(1, 1), (7, 21), (64, 4096), (128, 1 << 20)])
def test_blocks_of_any_size_give_the_same_codes(
    search: str, rows: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, points = (filled(search, 1000), latents(100)) if rows > 1 else (filled(search, 30), latents(20))
    expected = made(points)
    monkeypatch.setattr(quantiser, "SEARCH_CODES", rows)
    monkeypatch.setattr(quantiser, "SEARCH_CELLS", {"cpu": cells})
    assert torch.equal(made(points), expected)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("block", [10, 64, 1 << 14])
def test_of_equal_rows_the_lower_code_wins(search: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiser, "SEARCH_CODES", block)
    made = filled(search, 256)
    made.embedding.weight[128:] = made.embedding.weight[:128]
    found = made(latents(500))
    assert found.max() < 128
    assert torch.equal(found, brute_force(search, latents(500), made.embedding.weight[:128]))


def test_latents_in_half_precision_are_searched_in_float32() -> None:
    for search in SEARCHES:
        made, points = filled(search, 1000), latents().bfloat16()
        expected = brute_force(search, points, made.embedding.weight)
        assert torch.equal(made(points), expected)
        narrow = made.bfloat16()
        assert torch.equal(narrow(points), brute_force(search, points, narrow.embedding.weight))


@pytest.mark.parametrize("search", SEARCHES)
def test_a_row_looks_up_what_the_decoder_reads(search: str) -> None:
    made, codes = filled(search), torch.arange(100).reshape(4, 25)
    rows = made.embedding.weight
    expected = rows / rows.norm(dim=1, keepdim=True) if search == "cosine" else rows
    torch.testing.assert_close(made.lookup(codes), expected[codes])
    assert torch.equal(made.codebook[codes], made.lookup(codes))


@pytest.mark.parametrize("search", ["nearest", "cosine"])
def test_the_vector_of_a_code_has_that_code(search: str) -> None:
    made = filled(search)
    assert torch.equal(made(made.codebook), torch.arange(100))


def test_latents_comparable_with_a_cosine_codebook_have_unit_length_and_their_codes() -> None:
    made, points = filled("cosine"), latents()
    assert torch.allclose(made.comparable(points).norm(dim=1), torch.ones(len(points)))
    assert torch.equal(made(made.comparable(points)), made(points))
    assert torch.equal(filled("nearest").comparable(points), points)


def test_a_latent_without_length_has_a_code() -> None:
    assert filled("cosine")(torch.zeros(1, 8)).item() == 0


@pytest.mark.parametrize("search", SEARCHES)
def test_memory_does_not_grow_with_latents_times_codes(search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 x 262,144 scores would be 300 MiB."""
    width = 256 if search == "dot" else 32
    made = VectorQuantiser(1, width, search).requires_grad_(False)
    rows = torch.rand(262_144, width, generator=torch.Generator().manual_seed(0)).sub_(0.5)
    made.embedding.weight = torch.nn.Parameter(rows, requires_grad=False)
    scores, sizes = quantiser.scores, []

    def measured(*arguments: Tensor) -> Tensor:
        result = scores(*arguments)
        sizes.append(result.nbytes)
        return result

    monkeypatch.setattr(quantiser, "scores", measured)
    assert torch.equal(made(rows[-300:]), torch.arange(262_144 - 300, 262_144))
    assert max(sizes) <= 16 << 20
    assert len(sizes) == 2 * 16


def test_signs_are_bits_from_the_lowest_or_the_highest() -> None:
    points = torch.tensor([[-1.0, 2.0, 0.0], [0.1, -3.0, -0.0], [1e-30, 1.0, 1.0]])
    assert SignQuantiser(3)(points).tolist() == [2, 1, 7]
    assert SignQuantiser(3, highest_first=True)(points).tolist() == [2, 4, 7]
    assert SignQuantiser(3).lookup(torch.tensor([1, 6])).tolist() == [[1, -1, -1], [-1, 1, 1]]
    assert SignQuantiser(3, highest_first=True).lookup(torch.tensor([1, 6])).tolist() == [[-1, -1, 1], [1, 1, -1]]


@pytest.mark.parametrize("highest_first", [False, True])
def test_every_code_of_signs_is_that_of_its_vector(highest_first: bool) -> None:
    made = SignQuantiser(18, highest_first=highest_first)
    assert made.codebook.shape == (1 << 18, 18)
    assert torch.equal(made(made.codebook), torch.arange(1 << 18))


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,), (2, 7, 4)])
def test_every_code_of_levels_is_that_of_its_vector(levels: tuple[int, ...]) -> None:
    made = LevelQuantiser(levels)
    count = torch.tensor(levels).prod().item()
    assert made.codebook.shape == (count, len(levels))
    assert made.codebook.abs().max() <= 1
    steps = made.codebook * (torch.tensor(levels) // 2)
    half, even = (torch.tensor(levels) - 1) * 1.001 / 2, torch.where(torch.tensor(levels) % 2 == 0, 0.5, 0.0)
    inverse = torch.atanh(((steps + even) / half).double()) - torch.atanh((even / half).double())
    assert torch.equal(made(inverse.float()), torch.arange(count))


def test_far_latents_take_the_outer_levels() -> None:
    assert LevelQuantiser((8, 5))(torch.tensor([[-99.0, -99.0], [99.0, 99.0]])).tolist() == [0, 39]


def test_an_unknown_search_is_named() -> None:
    with pytest.raises(ValueError, match="'hamming': expected nearest, cosine, dot"):
        VectorQuantiser(2, 2, "hamming")
