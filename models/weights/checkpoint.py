"""What checkpoints of all networks share: detecting a format, loading the weights, and their fingerprints.

Fingerprints are stored with tokens, compared before these are decoded, and part of the fingerprint of a job.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from models.errors import CheckpointError
from models.weights import flax, native
from models.weights.checks import Network, fitting, names_in, without_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FOLDER_FILES = (native.CONFIG_NAME, native.WEIGHTS_NAME, flax.WEIGHTS_NAME, flax.INDEX_NAME)
Opened = TypeVar("Opened")
Openers = Sequence[Callable[[Path], Opened | None]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint(ABC, Generic[Network]):
    """A checkpoint whose configuration has been read and whose weights, in `files`, have not.

    `path` is its folder or file, `name` what provenance calls it. `leaves` gives the weights one at a time under our
    names, laid out as ours, in their stored dtype; if `mapped`, they may be views of a mapped file. `stored` is our own
    `config.json`.
    """

    path: Path
    format: str
    name: str
    config: Any
    files: tuple[Path, ...]
    leaves: Callable[[], Iterator[tuple[str, Tensor]]]
    mapped: bool = True
    stored: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def builder(self) -> Callable[[], Network]:
        """What builds the network. It imports nothing when it is called: torch 2.6 cannot on the device "meta"."""

    def checked_leaves(self) -> Iterator[tuple[str, Tensor]]:
        """`leaves`, raising `CheckpointError` that names every weight which is missing, extra or misshapen."""
        yield from fitting(self.leaves(), self.builder(), self.path)

    def weights_id(self, cache: Path | None = None) -> str:
        """The fingerprint of the weights, the same in every format.

        As `convert` stored it, else computed, which reads them all, one in memory at a time. A folder `cache` keeps it
        while the files do not change. Raises as `checked_leaves` does, even if only the header of the weights is read.
        """
        stored = self.stored.get("weights_id")
        if stored:
            shapes = native.read_weights(self.path / native.WEIGHTS_NAME, only_shapes=True)
            for _ in fitting(shapes, self.builder(), self.path):
                pass
            return str(stored)
        if cache is None:
            return weights_id(self.checked_leaves())
        return self._remembered(cache / "weights_ids")

    def _remembered(self, folder: Path) -> str:
        """The computed fingerprint, cached in `folder` by the configuration and each file's path, size and mtime.

        Reading gigabytes at each start would take longer than loading them.
        """
        stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        kept = folder / hashlib.sha256(repr([stamps, repr(self.config)]).encode()).hexdigest()
        with suppress(OSError):  # none yet, or that of a user who let nobody else read it
            return kept.read_text(encoding="utf-8")
        result = weights_id(self.checked_leaves())
        with suppress(OSError):  # without a cache it is computed each time
            folder.mkdir(parents=True, exist_ok=True)
            scratch = folder / f".{kept.name}.{os.getpid()}.{threading.get_ident()}"
            scratch.write_text(result, encoding="utf-8")  # not by tempfile, whose files only their owner can read
            os.replace(scratch, kept)
        return result

    def network(self) -> Network:
        """The network in float32 on the CPU; each weight is read once, into its final memory.

        Peak memory is the weights and the largest leaf: with stacked layers, that of one kind in all of them.
        """
        import torch

        model = without_weights(self.builder())
        leaves = fitting(self.leaves(), lambda: model, self.path)
        weights = {name: leaf.to(torch.float32, copy=self.mapped) for name, leaf in leaves}
        model.load_state_dict(weights, assign=True)
        return model


def leaves_of(model: nn.Module, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """The weights of a network on the CPU, in `dtype`, by default that of each weight."""
    for name, value in model.state_dict().items():
        yield name, value.detach().to("cpu", dtype).contiguous()


def detect(path: Path, of_folders: Openers[Opened], of_paths: Openers[Opened], expected: str) -> Opened:
    """The result of the first opener that knows the format of a folder or file.

    `of_folders` get the folder of a `config.json` and of the weights beside it, `of_paths` the path itself. Raises
    `CheckpointError` if the path does not exist, or with `expected` if no opener knows it.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    given = [(opener, folder) for opener in of_folders if path.is_dir() or path.name in FOLDER_FILES]
    for opener, argument in (*given, *((opener, path) for opener in of_paths)):
        opened = opener(argument)
        if opened is not None:
            return opened
    foreign = native.foreign_model(folder)
    if foreign is not None:
        raise CheckpointError(f"{path}: {native.not_ours(foreign)}")
    raise CheckpointError(f"{path}: {expected}; found {names_in(folder)}")


def codebook_id(codebook: Tensor) -> str:
    """SHA-256 (hex) of a codebook [n_embed, embed_dim] as little-endian float16 in C order.

    In float16, so that a checkpoint, its half-precision copy and its decoder alone have one id.
    """
    import torch

    half = codebook.detach().to("cpu", torch.float16).contiguous().numpy().astype("<f2", copy=False)
    return hashlib.sha256(half.reshape(-1).data).hexdigest()


def weights_id(leaves: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over all weights under our names: the same for any order, file format and width.

    Values are taken as float32, which holds float16 and bfloat16 exactly; one leaf is in memory at a time.
    """
    import torch

    lines = []
    for name, leaf in leaves:
        values = leaf.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest = hashlib.sha256(values.reshape(-1).data).hexdigest()
        lines.append(f"{name} {list(leaf.shape)} {digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
