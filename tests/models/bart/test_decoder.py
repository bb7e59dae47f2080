"""Merged dense layers, in each layout that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bart.decoder import Dense

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def layers(request: pytest.FixtureRequest) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(20, outputs, bias=request.param).requires_grad_(False) for outputs in (10, 14)]


def merged(*layers: nn.Linear, **settings: Any) -> Dense:
    return Dense([layer.weight for layer in layers], [layer.bias for layer in layers], device=CPU, **settings)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[found.dtype], rtol=0)


@pytest.mark.parametrize("rows", [1, 2, 18])
def test_merged_layers_stand_side_by_side(layers: list[nn.Linear], dtype: torch.dtype, rows: int) -> None:
    x = torch.randn(rows, 20)
    found = merged(*layers, rows=rows, dtype=dtype)(x.to(dtype))
    assert found.dtype == dtype
    close(found, torch.cat([layer(x) for layer in layers], 1))


@pytest.mark.parametrize("activation", [F.gelu, F.relu])
def test_an_activation_follows_the_product(
    layers: list[nn.Linear], dtype: torch.dtype, activation: Callable[[Tensor], Tensor]
) -> None:
    x = torch.randn(6, 20)
    dense = merged(layers[0], rows=6, dtype=dtype)
    close(dense.activated(x.to(dtype), activation), activation(layers[0](x)))


def test_a_product_is_multiplied(layers: list[nn.Linear], dtype: torch.dtype) -> None:
    x, other = torch.randn(6, 20), torch.randn(6, 10)
    dense = merged(layers[0], rows=6, dtype=dtype)
    close(dense.times(x.to(dtype), other.to(dtype)), layers[0](x) * other)


def test_rounded_up_sizes_read_and_give_zeros(layers: list[nn.Linear], dtype: torch.dtype) -> None:
    x = torch.randn(6, 20)
    found = merged(*layers, rows=6, dtype=dtype, inputs=32, outputs=16)(F.pad(x, (0, 12)).to(dtype))
    close(found, torch.cat([F.pad(layer(x), (0, 16 - layer.out_features)) for layer in layers], 1))
