"""Whether weights fit their network, said of every weight at once; each checkpoint reader streams through this."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.errors import CheckpointError

Leaves = Iterable[tuple[str, Tensor]]
Network = TypeVar("Network", bound=nn.Module)


class _Unfilled(TorchFunctionMode):
    """Modules built within draw no first weights: on the device "meta" drawing them would import torch's compiler."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        fills = getattr(func, "__module__", None) == nn.init.__name__
        return None if fills else func(*args, **(kwargs or {}))


def without_weights(build: Callable[[], Network]) -> Network:
    """The network of `build`, whose weights have shapes only, for those of a checkpoint to take their places."""
    with torch.device("meta"), _Unfilled():
        return build()


def fitting(leaves: Leaves, build: Callable[[], nn.Module], path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that the network of `build` has, one at a time.

    Raises `CheckpointError` at the end that names every weight which is missing, extra, misshapen or of whole numbers,
    and `path`.
    """
    expected = {name: tuple(value.shape) for name, value in without_weights(build).state_dict().items()}
    extra, misshapen, whole, seen = [], [], [], set()
    for name, leaf in leaves:
        if name not in expected:
            extra.append(name)
        elif tuple(leaf.shape) != expected[name]:
            seen.add(name)
            misshapen.append(f"{name} is {list(leaf.shape)}, not {list(expected[name])}")
        elif not leaf.is_floating_point():
            seen.add(name)
            whole.append(f"{name} is {str(leaf.dtype).removeprefix('torch.')}")
        else:
            seen.add(name)
            yield name, leaf
    missing = [name for name in expected if name not in seen]
    faults = [("missing", missing), ("extra", extra), ("misshapen", misshapen), ("not of real numbers", whole)]
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
