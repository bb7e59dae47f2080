"""Contenders take turns, some seconds each, until the time is up, so that other load on the machine hits all alike."""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support import machine
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.codec import TorchCodec

DTYPES = ("float32", "bfloat16")
LEAST_ROUNDS = 3


@dataclass
class Contender:
    """Something that works on images; `run(n)` returns images/s over n of them. It takes `longer` times the others'
    share of a round."""

    name: str
    dtype: str
    batch: int
    run: Callable[[int], float]
    longer: int = 1
    rows: int = 0
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `measure` reads, and the device."""
    parser.add_argument("--quick", action="store_true", help="one round of the least that shows that all works")
    parser.add_argument("--minutes", type=float, default=3.2, help="of measuring; at least three rounds are made")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", help="images at once (default: several)")
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=DTYPES, help="ours (default: both)")
    parser.add_argument("--peers_reuse_memory", action="store_true", help="the C library's setting in peers as in ours")


def in_batches(work: Callable[[np.ndarray], object], items: np.ndarray, batch: int) -> Callable[[int], float]:
    """`Contender.run` for `work`, which takes whole batches of `items` and has its results on the host when it ends."""

    def run(rows: int) -> float:
        start = time.perf_counter()
        for first in range(0, rows, batch):
            work(items.take(range(first, first + batch), axis=0, mode="wrap"))
        return rows / (time.perf_counter() - start)

    return run


def of_network(
    model: TokenizerNetwork,
    device: torch.device,
    dtypes: Sequence[str],
    batches: Sequence[int],
    items: np.ndarray,
    work: Callable[[TorchCodec, np.ndarray], np.ndarray],
) -> list[Contender]:
    """The network as vqbeam runs it in each dtype and batch size; `work` is a method of its codec."""
    contenders = []
    for dtype in dtypes:
        network = copy.deepcopy(model)
        for batch in batches:
            codec = TorchCodec(network, name="random", device=str(device), dtype=dtype, batch_size=batch)
            contenders.append(Contender("model", dtype, batch, in_batches(partial(work, codec), items, batch)))
    return contenders


def count_flops(work: Callable[[torch.Tensor], object], item: np.ndarray) -> float:
    """Operations in the convolutions and matrix products of `work`."""
    with FlopCounterMode(display=False) as counter:
        work(torch.from_numpy(item))
    return float(counter.get_total_flops())


def measure(
    contenders: Sequence[Contender], device: torch.device, most: int, args: argparse.Namespace
) -> dict[str, float]:
    """Fills in the rates, each over at most `most` images; returns the matrix peak of the same rounds by dtype."""
    for contender in contenders:
        contender.rows = contender.batch
        if not args.quick:
            contender.run(contender.batch)  # the first call allocates and, on a GPU, compiles
            batches = args.seconds * contender.longer * contender.run(contender.batch) / contender.batch
            contender.rows *= max(2, min(round(batches), most // contender.batch))
    peaks: dict[str, list[float]] = {dtype: [] for dtype in args.dtypes}
    end = time.monotonic() + 60 * args.minutes
    rounds = 0
    while rounds < (1 if args.quick else LEAST_ROUNDS) or (not args.quick and time.monotonic() < end):
        for dtype in args.dtypes:
            peaks[dtype].append(machine.matrix_peak(device, getattr(torch, dtype), args.quick))
        for contender in contenders:
            contender.rates.append(contender.run(contender.rows))
        rounds += 1
        print(f"round {rounds} is done", file=sys.stderr, flush=True)
    return {dtype: statistics.median(values) for dtype, values in peaks.items()}


def table(contenders: Sequence[Contender], peaks: dict[str, float], flops: float) -> str:
    """The Markdown table; `flops` are those of one image."""
    lines = [
        f"{flops / 1e9:.1f} GFLOP an image; matrix peak "
        + ", ".join(
            f"{dtype} {peak / 1e9:.0f} GFLOP/s (limit {peak / flops:.2f} images/s)" for dtype, peak in peaks.items()
        )
        + f"; medians of {len(contenders[0].rates)} rounds.",
        "",
        "| what | dtype | batch | images/s | lowest to highest | GFLOP/s | of the peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in contenders:
        speed = c.median * flops
        lines.append(
            f"| {c.name} | {c.dtype} | {c.batch} | {c.median:.2f} | {min(c.rates):.2f} to {max(c.rates):.2f} "
            f"| {speed / 1e9:.0f} | {speed / peaks[c.dtype]:.0%} |"
        )
    return "\n".join(lines)


def ratio_table(lines: Sequence[tuple[str, Sequence[str]]], dtypes: Sequence[str]) -> str:
    """Markdown: a line for each ratio, a column for each dtype."""
    head = [f"| ratio | {' | '.join(dtypes)} |", "|---" * (len(dtypes) + 1) + "|"]
    return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in lines)])


def fastest(contenders: Sequence[Contender], name: str, dtype: str) -> Contender:
    """The contender of that name and dtype at its best batch size."""
    return max((c for c in contenders if (c.name, c.dtype) == (name, dtype)), key=lambda c: c.median)


def at_batch(contenders: Sequence[Contender], name: str, dtype: str, batch: int) -> Contender:
    return next(c for c in contenders if (c.name, c.dtype, c.batch) == (name, dtype, batch))


def ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))
