"""The products with weights of a token step alone: few rows, by layout of the weights and size of pages.

*Blocked* is oneDNN's layout, measured if this processor and build of torch have it for the dtype. *Compiled* products
are those of `models/bart/compiled`: by pairs of rows, by panels and, in bfloat16 where there is one, by a matrix unit.

python -m benchmarks.products            DALL·E mini's decoder in bfloat16, three rounds, about four minutes
python -m benchmarks.products --quick    a small decoder, some seconds: its figures mean nothing
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.generate import SIZES
from benchmarks.support import machine
from benchmarks.support.rounds import ratio
from models.bart.compiled import TURN, panels, tiles
from models.bart.compiled.decoder import readable
from models.bart.compiled.products import dense_alone
from models.bart.config import DalleBartConfig
from models.bart.decoder import LEAST_PACKED_ROWS, TILE, Dense
from models.devices import collapse_into_huge_pages, torch_dtype
from models.threads import Threads

ROWS = (2, 4, 18, 64)  # one image, two, nine and 32, each with its guidance
PLAIN, BLOCKED, WHOLE_TILES = "plain", "blocked", "blocked, whole tiles"
COMPILED, PANELS, TILED = "compiled, pairs", "compiled, panels", "compiled, matrix unit"
Times = dict[str, tuple[float, float]]  # seconds of a step by layout, with small and with large pages


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small decoder, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    args = parser.parse_args(argv)
    config, dtype = SIZES["tiny" if args.quick else "mini"], torch_dtype(args.dtype)
    size = sum(outputs * inputs for outputs, inputs in _shapes(config)) * dtype.itemsize
    print(f"{machine.describe()}\n")
    print(f"{size / 1e6:.0f} MB of weights in {args.dtype}; memory {machine.memory_bandwidth() / 1e9:.1f} GB/s\n")
    print("| rows | layout | small pages, ms | large pages, ms | GB/s | times plain | times small pages |")
    print("|---|---|---|---|---|---|---|")
    for rows in ROWS:
        given = (config, rows, dtype, torch.get_num_threads(), 0.0 if args.quick else args.seconds)
        here = args.quick and rows != ROWS[0]
        rounds = [_measure(*given) if here else _afresh(*given) for _ in range(1 if args.quick else args.rounds)]
        for layout in rounds[0]:
            small, large = ([times[layout][pages] for times in rounds] for pages in (0, 1))
            cells = [f"{1000 * statistics.median(small):.2f}", f"{1000 * statistics.median(large):.2f}"]
            cells += [f"{size / statistics.median(large) / 1e9:.1f}"]
            plain = [times[PLAIN][1] for times in rounds]
            cells += [f"{ratio(plain, large):.2f}", f"{ratio(small, large):.2f}"]
            print(f"| {rows} | {layout} | {' | '.join(cells)} |", flush=True)
    return 0


def layouts(dtype: torch.dtype) -> list[str]:
    """The layouts that can be measured here."""
    found = [PLAIN]
    if Dense([torch.ones(1, 1)], rows=LEAST_PACKED_ROWS, device=machine.CPU, dtype=dtype).packed:
        found += [BLOCKED, WHOLE_TILES]
    found.append(COMPILED)
    found.append(PANELS)
    if dtype == torch.bfloat16 and tiles.usable():
        found.append(TILED)
    return found


def _shapes(config: DalleBartConfig) -> list[tuple[int, int]]:
    """Outputs and inputs of the weights that a step multiplies by, merged as in `models/bart/decoder.py`."""
    size, hidden = config.d_model, config.decoder_ffn_dim
    layer = [(3 * size, size)] + 3 * [(size, size)] + 2 * [(hidden, size)] + [(size, hidden)]
    return layer * config.decoder_layers


def _afresh(*given: Any) -> Times:
    """`_measure` in a new process, since large pages never go back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_measure, *given).result()


def _measure(config: DalleBartConfig, rows: int, dtype: torch.dtype, threads: int, seconds: float) -> Times:
    """Measures one round: all weights are allocated before any of them moves into large pages."""
    torch.set_num_threads(threads)
    hidden = config.decoder_ffn_dim
    tiled = {hidden: -(-hidden // TILE) * TILE}
    weights = [torch.randn(shape).to(dtype) for shape in _shapes(config)]
    xs = {inputs: torch.randn(rows, inputs).to(dtype) for inputs in (config.d_model, hidden, tiled[hidden])}
    steps: dict[str, list[Callable[[], object]]] = {}
    for layout in layouts(dtype):
        products = steps[layout] = []
        for weight in weights:
            if layout in (COMPILED, PANELS, TILED):
                products.append(_compiled(weight, rows, threads, layout))
                continue
            outputs, inputs = (tiled.get(side, side) if layout == WHOLE_TILES else side for side in weight.shape)
            product: Callable[[Tensor], Tensor] = partial(F.linear, weight=weight)
            if layout != PLAIN:
                packed = max(rows, LEAST_PACKED_ROWS)  # `Dense` might leave fewer rows unpacked
                product = Dense([weight], rows=packed, device=machine.CPU, dtype=dtype, inputs=inputs, outputs=outputs)
            products.append(partial(product, xs[inputs]))
    small = {layout: _seconds(products, seconds) for layout, products in steps.items()}
    collapse_into_huge_pages()
    return {layout: (small[layout], _seconds(products, seconds)) for layout, products in steps.items()}


def _compiled(weight: Tensor, rows: int, threads: int, layout: str) -> Callable[[], object]:
    """A function that multiplies random rows by `weight`: `rows` rounded up to pairs, or to whole tiles."""
    together = {COMPILED: 2, PANELS: 1, TILED: tiles.TILE}[layout]
    rows = -(-rows // together) * together
    weight = F.pad(weight, (0, -weight.shape[1] % TURN))
    x = torch.randn(rows, weight.shape[1])
    held = {PANELS: panels.arranged, TILED: tiles.arranged}.get(layout, Tensor.contiguous)(weight)
    read = x.bfloat16() if layout == TILED else x
    room = panels.room(*x.shape) if layout == PANELS else tiles.set_up()
    out = np.zeros((rows, -(-len(weight) // tiles.TILE) * tiles.TILE), np.float32)
    scale = np.ones(len(weight), np.float32)
    given = (readable(held), scale, readable(read), out, room)
    return partial(Threads().run, dense_alone, *given, turns=2, threads=threads)


def _seconds(products: list[Callable[[], object]], least: float) -> float:
    """The median time of all products in turn, over as many times as fit in `least`, after one to warm up."""
    taken: list[float] = []
    while sum(taken[1:]) < least or len(taken) < 3:
        start = time.perf_counter()
        for product in products:
            product()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    sys.exit(main())
