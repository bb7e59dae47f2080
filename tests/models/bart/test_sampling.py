"""From logits to codes: probabilities as dalle-mini has them, and draws that follow them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from models.bart.sampling import BLOCK, MOST_CANDIDATES, Search, guide, kept_weights, sample
from models.uniforms import uniforms
from tests.support.paths import GOLDEN

FOLDER = GOLDEN / "sampling"
CASES = json.loads((FOLDER / "cases.json").read_text())
HIGHEST = 1 - 2**-53  # the largest uniform


def logits() -> Tensor:
    return torch.from_numpy(np.load(FOLDER / "logits.npy"))


def options(rows: int, temperature: float = 1, top_k: int = 0, top_p: float = 1) -> dict[str, Tensor]:
    return {
        "temperature": torch.full((rows,), float(temperature)),
        "top_k": torch.full((rows,), top_k),
        "top_p": torch.full((rows,), float(top_p)),
    }


def probabilities(logits: Tensor, options: dict[str, Tensor]) -> Tensor:
    weights = kept_weights(logits, options)
    return (weights / weights.sum(1, keepdim=True)).float()


def at(values: float, rows: int = 1) -> Tensor:
    return torch.full((rows,), values, dtype=torch.float64)


def wide(rows: int = 8, size: int = 5000) -> Tensor:
    """Logits over many blocks, with many equal values among the largest."""
    values = torch.randn(rows, size, generator=torch.Generator().manual_seed(0)) * 3
    return (values * 2).round() / 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_probabilities_are_those_of_the_reference(case: dict[str, float]) -> None:
    values = logits()
    found = probabilities(values, options(len(values), case["temperature"], int(case["top_k"]), case["top_p"]))
    expected = torch.from_numpy(np.load(FOLDER / str(case["file"])))
    assert (found > 0).sum(1).tolist() == case["kept"]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_draws_follow_the_probabilities(case: dict[str, float]) -> None:
    values = logits()[:1]
    given = options(1, case["temperature"], int(case["top_k"]), case["top_p"])
    expected = probabilities(values, given)[0].double().numpy()
    draws = 4000
    uniform = torch.from_numpy(uniforms(0, "draws", 0, draws))
    rows = {name: tensor.expand(draws) for name, tensor in given.items()}
    search = Search.covering({name: tensor.numpy() for name, tensor in rows.items()})
    counts = np.bincount(sample(values.expand(draws, -1), rows, uniform, search), minlength=values.shape[1])
    assert not counts[expected == 0].any()
    common = expected * draws >= 5
    rare = expected[~common].sum() * draws
    seen = np.append(counts[common], counts[~common].sum()) if rare else counts[common]
    awaited = np.append(expected[common] * draws, rare) if rare else expected[common] * draws
    freedom = len(seen) - 1
    bound = freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations of chi-square
    assert ((seen - awaited) ** 2 / awaited).sum() <= bound


def test_codes_stand_in_the_order_of_their_ids() -> None:
    """Probabilities 0.2, 0.5, 0.3 by id: the ends of each code's part of the line."""
    values = torch.tensor([[0.2, 0.5, 0.3]]).log()
    drawn = [sample(values, options(1), at(uniform)).item() for uniform in (0, 0.19, 0.21, 0.69, 0.71, HIGHEST)]
    assert drawn == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("search", [Search(), Search(candidates=64)])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_uniform_selects_a_code_of_probability_0(search: Search, top_p: float) -> None:
    values = logits()
    values[:, -1] = -torch.inf
    given = options(len(values), top_k=10, top_p=top_p)
    kept = probabilities(values, given) > 0
    for uniform in (0.0, 2**-53, 0.5, HIGHEST):
        drawn = sample(values, given, at(uniform, len(values)), search)
        assert kept.gather(1, drawn[:, None]).all()


@pytest.mark.parametrize("top_p", [1.0, 0.7, 1e-9])
@pytest.mark.parametrize("top_k", [1, 3, 64])
def test_the_cheap_search_draws_what_the_whole_one_does(top_k: int, top_p: float) -> None:
    values = wide()
    assert values.shape[1] > 64 * BLOCK
    given = options(len(values), top_k=top_k, top_p=top_p)
    for step in uniforms(0, "searches", 0, 20):
        uniform = at(step, len(values))
        assert torch.equal(sample(values, given, uniform, Search(64)), sample(values, given, uniform))


def test_rows_with_other_options_beside_it_change_no_row() -> None:
    values = wide(4)
    given = {
        "temperature": torch.tensor([1, 0.5, 2, 1]),
        "top_k": torch.tensor([50, 0, 3, 0]),
        "top_p": torch.tensor([1, 1, 0.5, 0.9]),
    }
    for step in uniforms(0, "neighbours", 0, 20):
        together = sample(values, given, at(step, 4))
        for row in range(4):
            part = {name: tensor[row : row + 1] for name, tensor in given.items()}
            search = Search.covering({name: tensor.numpy() for name, tensor in part.items()})
            alone = sample(values[row : row + 1], part, at(step), search)
            assert alone.item() == together[row].item()


def test_top_k_keeps_exactly_so_many_of_equal_logits_lowest_ids_first() -> None:
    values = torch.zeros(1, 3000)
    values[0, 2000] = 1
    assert probabilities(values, options(1, top_k=4))[0].nonzero()[:, 0].tolist() == [0, 1, 2, 2000]
    drawn = {sample(values, options(1, top_k=4), at(u), Search(64)).item() for u in (0, 0.2, 0.5, 0.9, HIGHEST)}
    assert drawn == {0, 1, 2, 2000}


@pytest.mark.parametrize("search", [Search(), Search(candidates=64)])
def test_small_temperatures_give_the_argmax(search: Search) -> None:
    values = logits()
    drawn = sample(values, options(len(values), temperature=1e-30, top_k=50), at(HIGHEST, len(values)), search)
    assert torch.equal(drawn, values.argmax(1))


def test_a_bound_is_found_for_the_rows_of_a_batch() -> None:
    def covering(top_k: list[int], top_p: list[float]) -> Search:
        return Search.covering({"top_k": np.array(top_k), "top_p": np.array(top_p)})

    assert covering([50, 1], [1, 1]) == Search(candidates=64, nucleus=False)
    assert covering([65, 1], [1, 0.5]) == Search(candidates=128)
    assert covering([50, 0], [1, 1]) == Search(nucleus=False)
    assert covering([0, 0], [1, 1]) == Search(limited=False, nucleus=False)
    assert covering([MOST_CANDIDATES + 1], [0.9]) == Search()


def test_guidance_1_is_the_conditional_half() -> None:
    cond, uncond = torch.randn(2, 3, 5).unbind()
    assert torch.equal(guide(cond, uncond, torch.ones(3)), cond)


def test_guidance_is_scaled_row_by_row() -> None:
    cond, uncond = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    assert guide(cond, uncond, torch.tensor([0.0, 10.0])).tolist() == [[1.0], [11.0]]
