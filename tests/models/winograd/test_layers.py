"""Convolutions by Winograd's algorithm, beside torch's own in float64."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("numba")

from models.errors import ConfigError
from models.winograd.layers import WinogradConv2d, suits, use_winograd

SIZES = [(1, 32, 32), (2, 33, 41), (3, 35, 30), (1, 62, 17), (1, 5, 300)]


def images(count: int, height: int, width: int, channels: int = 32) -> Tensor:
    """As a network has them: after SiLU, channels last."""
    values = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))
    return F.silu(values).to(memory_format=torch.channels_last)


def conv(inputs: int = 32, outputs: int = 64, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)


def exact(plain: nn.Conv2d, x: Tensor) -> Tensor:
    bias = None if plain.bias is None else plain.bias.double()
    return F.conv2d(x.double(), plain.weight.double(), bias, padding=1)


def error(found: Tensor, right: Tensor) -> float:
    return float((found - right).pow(2).mean().sqrt() / right.pow(2).mean().sqrt())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_it_equals_a_direct_convolution(size: tuple[int, int, int], bias: bool) -> None:
    plain, x = conv(bias=bias), images(*size)
    found, right = WinogradConv2d(plain, 2)(x), exact(plain, x)
    assert found.shape == right.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert error(found, right) < 2e-6
    edges = torch.ones(right.shape[2:], dtype=torch.bool)
    edges[1:-1, 1:-1] = False
    assert error(found[:, :, edges], right[:, :, edges]) < 2e-6


@torch.inference_mode()
def test_its_error_is_of_the_order_of_a_direct_ones() -> None:
    plain, x = conv(128, 128), images(1, 32, 32, 128)
    right = exact(plain, x)
    assert error(WinogradConv2d(plain, 2)(x), right) < 3 * error(plain(x), right)


@torch.inference_mode()
def test_neighbours_and_threads_change_no_bit() -> None:
    plain, x = conv(), images(3, 33, 41)
    together = WinogradConv2d(plain, 2)(x)
    for row in range(3):
        alone = WinogradConv2d(plain, 1)(x[row : row + 1])
        np.testing.assert_array_equal(alone[0].numpy(), together[row].numpy())


@torch.inference_mode()
def test_small_images_go_the_direct_way() -> None:
    plain, x = conv(), images(1, 31, 32)
    np.testing.assert_array_equal(WinogradConv2d(plain, 2)(x).numpy(), plain(x).numpy())


def test_it_can_be_differentiated() -> None:
    fast, x = WinogradConv2d(conv(), 2), images(1, 32, 32).requires_grad_()
    fast(x).sum().backward()
    assert x.grad is not None


def test_other_convolutions_stay() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),  # few channels
        nn.Conv2d(32, 32, 1),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(512, 256, 3, padding=1),
        nn.Sequential(conv()),
    )
    names = list(network.state_dict())
    assert use_winograd(network, 1) == 1
    assert isinstance(network[6][0], WinogradConv2d)
    assert list(network.state_dict()) == names


def test_it_is_chosen_for_large_networks_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert suits("cpu", "auto", 1e11)
    assert suits("cpu", "float32", 1e11)
    assert not suits("cpu", "float32", 1e9)
    assert not suits("cpu", "bfloat16", 1e11)
    assert not suits("cuda", "float32", 1e11)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not suits("cpu", "float32", 1e11)


def test_without_numba_it_is_not_chosen_and_a_job_that_needs_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not suits("cpu", "float32", 1e11)
    with pytest.raises(ConfigError, match="pip install numba"):
        use_winograd(nn.Sequential(conv()), 1)
