"""Whether weights fit their network, said of every weight at once; each checkpoint reader streams through this."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import CheckpointError

Leaves = Iterable[tuple[str, Tensor]]


def fitting(leaves: Leaves, build: Callable[[], nn.Module], path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that the network of `build` has, one at a time.

    Raises `CheckpointError` at the end that names every weight which is missing, extra or misshapen, and `path`.
    """
    with torch.device("meta"):
        network = build()
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    extra, misshapen, seen = [], [], set()
    for name, leaf in leaves:
        if name not in expected:
            extra.append(name)
        elif tuple(leaf.shape) != expected[name]:
            seen.add(name)
            misshapen.append(f"{name} is {list(leaf.shape)}, not {list(expected[name])}")
        else:
            seen.add(name)
            yield name, leaf
    missing = [name for name in expected if name not in seen]
    faults = [("missing", missing), ("extra", extra), ("misshapen", misshapen)]
    found = "; ".join(f"{what}: {preview(names)}" for what, names in faults if names)
    if found:
        raise CheckpointError(f"{path}: the weights do not fit the configuration; {found}")


def check_fit(leaves: Leaves, build: Callable[[], nn.Module], path: Path) -> None:
    """Raise as `fitting` does. The shapes of the weights are enough: they may be on the device "meta"."""
    deque(fitting(leaves, build, path), maxlen=0)


def preview(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are, for a message."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
