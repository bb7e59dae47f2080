"""A peer in another process, as its users run it: the settings of vqbeam's process do not reach it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import torch

from pipelines.process import reuse_freed_memory

Peer = TypeVar("Peer")
P = ParamSpec("P")
R = TypeVar("R")
_loaded: Any = None  # in the peer's process


class PeerProcess(Generic[Peer]):
    """Holds what `load(*given)` returns, in a process with as many threads as this one; used as a context.

    `reuse_memory` gives the process the C library's setting that vqbeam's processes have.
    """

    def __init__(self, load: Callable[..., Peer], *given: object, reuse_memory: bool = False) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, _load, (load, given, torch.get_num_threads(), reuse_memory))

    def __enter__(self) -> PeerProcess[Peer]:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def run(self, method: Callable[Concatenate[Peer, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a method of the peer in its process."""
        return self._process.submit(_run, method, args, kwargs).result()


def _load(load: Callable[..., object], given: tuple[object, ...], threads: int, reuse_memory: bool) -> None:
    global _loaded
    if reuse_memory:
        reuse_freed_memory()
    _loaded = load(*given)
    torch.set_num_threads(threads)  # after `load`: importing min-dalle sets it too


def _run(method: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object]) -> R:
    return method(_loaded, *args, **kwargs)
