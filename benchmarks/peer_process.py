"""A peer in a process of its own, as its users run it: what vqbeam does to its own process does not reach it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.rounds import in_batches
from pipelines.process import reuse_freed_memory


@dataclass(frozen=True)
class Peer:
    """Another network with our weights. `work` is what its users do with a batch, until the result is on the host;
    `exact` gives what is compared with ours. `weights` counts the numbers of what does the work."""

    work: Callable[[np.ndarray], np.ndarray]
    exact: Callable[[np.ndarray], np.ndarray]
    weights: int


Load = Callable[[Path, torch.device], Peer]
_loaded: tuple[Peer, np.ndarray] | None = None  # of the peer's process


class PeerProcess:
    """What `load` makes of the weights in `folder`, and the items that it works on; used as a context. `reuse_memory`
    gives it the setting of the C library that vqbeam's processes have."""

    def __init__(
        self, load: Load, folder: Path, device: torch.device, items: np.ndarray, *, reuse_memory: bool = False
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        given = (load, folder, device, items, torch.get_num_threads(), reuse_memory)
        self._process = ProcessPoolExecutor(1, spawn, _load, given)

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def rate(self, rows: int, batch: int) -> float:
        """Images/s over `rows` items in whole batches."""
        return self._process.submit(_rate, rows, batch).result()

    def exact(self, rows: int) -> np.ndarray:
        """What is compared, of the first items, one at a time."""
        return self._process.submit(_exact, rows).result()

    def weights(self) -> int:
        return self._process.submit(_weights).result()


def _load(load: Load, folder: Path, device: torch.device, items: np.ndarray, threads: int, reuse_memory: bool) -> None:
    global _loaded
    if reuse_memory:
        reuse_freed_memory()
    peer = load(folder, device)
    torch.set_num_threads(threads)  # after `load`: importing min-dalle sets it too
    _loaded = (peer, items)


def _rate(rows: int, batch: int) -> float:
    assert _loaded is not None
    peer, items = _loaded
    return in_batches(peer.work, items, batch)(rows)


def _exact(rows: int) -> np.ndarray:
    assert _loaded is not None
    peer, items = _loaded
    return np.concatenate([peer.exact(items[i : i + 1]) for i in range(rows)])


def _weights() -> int:
    assert _loaded is not None
    return _loaded[0].weights
