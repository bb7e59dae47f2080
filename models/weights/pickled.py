"""Read weights from a PyTorch pickle (taming's `.ckpt`, min-dalle's `.pt`) without running anything in it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# Read as empty stand-ins, so that neither these packages nor any code of the file is needed or run. pytorch-lightning
# keys the state of its callbacks by their class, and the published taming checkpoints carry the first one; LlamaGen's
# trainer stores its arguments.
BOOKKEEPING = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", "argparse.Namespace")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the `state_dict` inside a training checkpoint, by name.

    Tensors are mapped from the file if its format allows, so that nothing is read before it is used.
    Raises `CheckpointError` for a file that is cut short, or that holds anything but plain data and tensors.
    """
    states = read_states(path, ("state_dict",))
    return states.get("state_dict") or states[""]


def read_states(path: Path, keys: Sequence[str] = ()) -> dict[str, dict[str, Tensor]]:
    """The state dicts under those of `keys` that a training checkpoint has; if it has none, it is one itself, under "".

    As `read_state`, which takes one of them.
    """
    content = _load(path)
    found = {key: content[key] for key in keys if isinstance(content, dict) and isinstance(content.get(key), dict)}
    return {key: _tensors(path, state) for key, state in (found or {"": content}).items()}


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not named weights or a `state_dict` of them")
    strange = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if not torch.is_tensor(value)]
    if strange:
        raise CheckpointError(f"{path}: not every entry is a weight: {', '.join(strange[:3])}")
    return {str(name): value for name, value in content.items()}


def _load(path: Path) -> Any:
    """Raises `CheckpointError` for a file that is cut short, or that holds anything but plain data and tensors."""
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        with torch.serialization.safe_globals([_empty(name) for name in BOOKKEEPING]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a PyTorch checkpoint, or cut short ({path.stat().st_size} bytes): {reason}; copy it again"
        ) from error


def _empty(name: str) -> type:
    """A class without contents under the full name of another."""
    module, _, last = name.rpartition(".")
    return type(last, (), {"__module__": module})


def _refusal(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """The error that names what the pickle would import beside tensors, which could run code."""
    import torch

    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # the format from before PyTorch 1.6, or a torn file
        names = re.findall(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))[:1]
    names = [name for name in names if name not in BOOKKEEPING]
    if not names:
        # torch's own message advises to load the file anyway.
        with path.open("rb") as file:
            start = file.read(20)
        return CheckpointError(
            f"{path}: not a PyTorch checkpoint, or cut short: it begins with {start!r}; copy it again"
        )
    return CheckpointError(
        f"{path}: the pickle holds more than weights ({', '.join(names[:5])}), and reading that could run code. "
        "If you trust the file, load it where it was made and save only its weights: "
        "torch.save({'state_dict': checkpoint['state_dict']}, 'weights.ckpt')"
    )
