"""Products of any number of rows: equal to torch's, and to those of the same row among others; and fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("numba")

from models.bart.compiled import panels, units
from models.bart.compiled.decoder import readable
from models.bart.compiled.products import dense_alone
from models.threads import LINE, Threads

DTYPES = (torch.float32, torch.bfloat16, torch.int8)
ROWS = (1, 2, 3, 4, 5, 12, 13, 18, 25, 64)
needs_bytes = pytest.mark.skipif(
    not panels.multiplies_bytes(), reason="no unit for dot products of bytes (AVX-512 VNNI) in what numba compiles for"
)
needs_wide = pytest.mark.skipif(not units.has(units.WIDE), reason="numba compiles for registers without AVX-512")


def _weight(dtype: torch.dtype, outputs: int = 72, inputs: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.int8:
        return torch.randint(-127, 128, (outputs, inputs), generator=generator).to(torch.int8)
    return torch.randn(outputs, inputs, generator=generator).to(dtype)


def _x(rows: int, inputs: int = 96) -> torch.Tensor:
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(1))


def _product(weight: torch.Tensor, x: torch.Tensor, threads: int = 1) -> torch.Tensor:
    """The product with outputs that are no whole panels, each output scaled by 0.5."""
    out, scale = np.full((len(x), len(weight)), np.nan, np.float32), np.full(len(weight), 0.5, np.float32)
    room = panels.room(*x.shape)
    given = readable(panels.arranged(weight)), scale, x.numpy(), out, room
    Threads().run(dense_alone, *given, turns=2, threads=threads)
    return torch.from_numpy(out)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_rows_is_multiplied(dtype: torch.dtype, rows: int) -> None:
    weight, x = _weight(dtype), _x(rows)
    expected = x.double() @ weight.double().T / 2
    torch.testing.assert_close(_product(weight, x).double(), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_is_the_same_among_any_others_and_by_any_number_of_threads(dtype: torch.dtype) -> None:
    weight, x = _weight(dtype), _x(max(ROWS))
    expected = _product(weight, x)
    for rows in ROWS:
        for threads in (1, 2):
            assert torch.equal(_product(weight, x[:rows], threads), expected[:rows])
    assert torch.equal(_product(weight, x.flip(0)), expected.flip(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_with_what_is_no_number_gives_none_and_leaves_the_others(dtype: torch.dtype, bad: float) -> None:
    weight, x = _weight(dtype), _x(7)
    expected = _product(weight, x)
    x[3, 5] = bad
    found = _product(weight, x)
    assert not found[3].isfinite().any()
    assert torch.equal(found[[0, 1, 2, 4, 5, 6]], expected[[0, 1, 2, 4, 5, 6]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_zeros_and_of_tiny_numbers_are_nothing(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 96)
    x[1] = 1e-40
    assert float(_product(_weight(dtype), x).abs().max()) < 1e-30


@needs_bytes
def test_dot_products_of_bytes_are_whole_numbers_of_16_bits_times_weights() -> None:
    weight, x = _weight(torch.int8), _x(6)
    x[2] *= 1e6  # each row has a scale
    x[4, 0] = 1000  # and the smaller inputs of this one few levels
    unit = x.abs().amax(1, keepdim=True) / float(panels.LEVELS)
    whole = (x * (1 / unit)).double().add(0.5).floor()
    expected = (whole @ weight.double().T) * unit.double() / 2
    assert float(whole.abs().max()) <= panels.LEVELS
    difference = (_product(weight, x) - expected).abs() / unit
    assert float(difference.max()) < 2 * 128  # a level of an input, which may be rounded the other way


@needs_bytes
def test_the_largest_sums_of_bytes_fit() -> None:
    inputs = 4096  # the hidden size of DALL·E mega
    weight, x = torch.full((32, inputs), 127, dtype=torch.int8), torch.ones(3, inputs)
    x[1], x[2] = -1, -1
    x[2, 1::2] = 1
    found = _product(weight, x)
    assert found[0].unique().tolist() == [127 * inputs / 2]
    assert found[1].unique().tolist() == [-127 * inputs / 2]
    assert found[2].unique().tolist() == [0]


def _seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


@needs_wide
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 0.5), (torch.bfloat16, 0.5), pytest.param(torch.int8, 1.0, marks=needs_bytes)]
)
def test_eighteen_rows_take_no_longer_than_torch_takes_for_them(dtype: torch.dtype, least: float) -> None:
    """Of processor time in one run, in turns, on one thread. Measured: 1.7, 1.8 and 4.5 times as fast."""
    weight, x = _weight(dtype, 2048, 1024), _x(18, 1024)
    arranged, plain = readable(panels.arranged(weight)), torch.randn(2048, 1024)
    scale, out, room = np.ones(2048, np.float32), np.zeros((18, 2048), np.float32), panels.room(18, 1024)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, theirs = [], []
    for _ in range(21):
        board = np.zeros((2, 2, LINE), np.int64)
        ours.append(_seconds(lambda board=board: dense_alone(arranged, scale, x.numpy(), out, room, board, 0)))
        theirs.append(_seconds(lambda: F.linear(x, plain)))
    torch.set_num_threads(before)
    assert statistics.median(theirs) / statistics.median(ours) > least
