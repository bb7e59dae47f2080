"""Checks of checkpoints: whether weights fit their network, named all at once, and the largest sizes of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from models.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

Leaves: TypeAlias = "Iterable[tuple[str, Tensor]]"
Network = TypeVar("Network", bound="nn.Module")

# The largest sizes that a configuration may ask for: a wrong number must not fill the memory.
MOST_BLOCKS = 1 << 8  # of each level of a VQGAN; and how many times its first width a level may be wide
MOST_LAYERS = 1 << 10
MOST = 1 << 24  # of all else


def without_weights(build: Callable[[], Network]) -> Network:
    """The network of `build` with weights that have shapes and no values, to be replaced by those of a checkpoint."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        """Skips the first values of weights: on the device "meta" drawing them would import torch's compiler."""

        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            fills = getattr(func, "__module__", None) == torch.nn.init.__name__
            return None if fills else func(*args, **(kwargs or {}))

    with torch.device("meta"), Unfilled():
        return build()


def fitting(leaves: Leaves, build: Callable[[], nn.Module], path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that the network of `build` has, one at a time; shapes on the device "meta" will do.

    Raises `CheckpointError` at the end that names `path` and every weight which is missing, extra, misshapen or of
    whole numbers.
    """
    expected = {name: tuple(value.shape) for name, value in without_weights(build).state_dict().items()}
    extra, misshapen, whole, seen = [], [], [], set()
    for name, leaf in leaves:
        seen.add(name)
        if name not in expected:
            extra.append(name)
        elif tuple(leaf.shape) != expected[name]:
            misshapen.append(f"{name} is {list(leaf.shape)}, not {list(expected[name])}")
        elif not leaf.is_floating_point():
            whole.append(f"{name} is {str(leaf.dtype).removeprefix('torch.')}")
        else:
            yield name, leaf
    missing = [name for name in expected if name not in seen]
    faults = [("missing", missing), ("extra", extra), ("misshapen", misshapen), ("not of real numbers", whole)]
    found = "; ".join(f"{what}: {preview(names)}" for what, names in faults if names)
    if found:
        raise CheckpointError(f"{path}: the weights do not fit the configuration; {found}")


def names_in(folder: Path) -> str:
    """The first few names in a folder, for a message; "nothing" if it is empty or missing."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return preview(names) or "nothing"


def preview(names: Sequence[str]) -> str:
    """The first five names, and how many more there are, for a message."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
