"""The peer in a process of its own, as its users run it: what vqbeam does to its own process does not reach it."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peer
from models.checkpoints import load_vqgan
from models.vqgan import VQGANConfig

_loaded: tuple[Any, VQGANConfig, np.ndarray] | None = None  # of the peer's process


class PeerProcess:
    """diffusers' model with the weights in `folder` and prepared pictures, uint8 [N, H, W, 3]. Closed as a context."""

    def __init__(self, folder: Path, device: torch.device, pictures: np.ndarray) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, _load, (folder, str(device), pictures, torch.get_num_threads()))

    def rate(self, rows: int, batch: int) -> float:
        """Images/s over `rows` pictures in whole batches."""
        return self._process.submit(_rate, rows, batch).result()

    def codes(self, rows: int) -> np.ndarray:
        """int64 [rows, T] of the first pictures."""
        return self._process.submit(_codes, rows).result()

    def weights(self) -> int:
        """Numbers in its encoder and codebook."""
        return self._process.submit(_weights).result()

    def close(self) -> None:
        self._process.shutdown()


def _load(folder: Path, device: str, pictures: np.ndarray, threads: int) -> None:
    global _loaded
    torch.set_num_threads(threads)
    model = load_vqgan(folder).eval().requires_grad_(False)
    _loaded = (peer.make_peer(model, torch.device(device)), model.config, pictures)


def _rate(rows: int, batch: int) -> float:
    assert _loaded is not None
    other, config, pictures = _loaded
    start = time.perf_counter()
    for first in range(0, rows, batch):
        part = pictures.take(range(first, first + batch), axis=0, mode="wrap")
        peer.encode(other, torch.from_numpy(part), config)
    return rows / (time.perf_counter() - start)


def _codes(rows: int) -> np.ndarray:
    assert _loaded is not None
    other, config, pictures = _loaded
    return peer.encode(other, torch.from_numpy(pictures[:rows]), config).numpy()


def _weights() -> int:
    assert _loaded is not None
    return sum(p.numel() for name, p in _loaded[0].named_parameters() if not name.startswith(peer.NOT_COMPARED))
