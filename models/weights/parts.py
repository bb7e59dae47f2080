"""Weights as other projects ship them: one file, or parts that an index names, with more in them than is wanted.

Only the files that hold what is asked for are opened, and of those only that is read.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import CheckpointError
from models.weights.native import WEIGHTS_NAME, read_json, read_weights
from models.weights.pickled import read_states

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".pt", ".pth", ".ckpt", ".bin")
INDEX = ".index.json"
WHOLE = (WEIGHTS_NAME, f"{WEIGHTS_NAME}{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
LOOKED_AT = 1 << 24  # bytes at the beginning of a pickle, where the names are


def candidates(path: Path) -> list[Path]:
    """The files of a folder that may hold weights or say where they are; a file itself."""
    if path.is_file():
        return [path]
    loose = sorted(file for file in path.glob("*") if file.suffix in PICKLES and file.name not in WHOLE)
    return [path / name for name in WHOLE if (path / name).is_file()] + loose


def mentions(path: Path, name: str) -> bool:
    """Whether a file of weights, or an index of some, has a part of this name in it; without torch, in milliseconds."""
    wanted = name.encode()
    if path.suffix in (".safetensors", ".json"):
        return wanted in _described(path)
    if path.suffix not in PICKLES:
        return False
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return wanted in file.read(LOOKED_AT)
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [entry for entry in archive.namelist() if entry.rpartition("/")[2] == "data.pkl"]
            return any(wanted in archive.open(entry).read(LOOKED_AT) for entry in pickles)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
        return False  # broken: the family that reads such a file says so


def _described(path: Path) -> bytes:
    """The header of a safetensors file, or a whole JSON file."""
    with path.open("rb") as file:
        if path.suffix == ".json":
            return file.read()
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(min(size, path.stat().st_size))


@dataclass(frozen=True)
class Parts:
    """The files of named weights: `where` each is, by its full name."""

    path: Path
    where: Mapping[str, Path]

    def prefix_of(self, name: str) -> str:
        """What stands before a name, such as "gen_vision_model."; raises `CheckpointError` if no weight ends so."""
        for full in self.where:
            if full == name or full.endswith(f".{name}"):
                return full.removesuffix(name)
        raise CheckpointError(f"{self.path}: holds no {name}")

    def files(self, prefix: str = "") -> tuple[Path, ...]:
        """Those with weights whose names begin with `prefix`. Raises `CheckpointError` if one is missing."""
        found = tuple(sorted({file for name, file in self.where.items() if name.startswith(prefix)}))
        absent = [file.name for file in found if not file.is_file()]
        if absent:
            raise CheckpointError(f"{self.path}: names {', '.join(absent[:3])}, which the folder lacks; copy them too")
        return found

    def read(self, prefix: str = "", *, only_shapes: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The weights whose names begin with `prefix`, without it, one at a time."""
        for file in self.files(prefix):
            for name, leaf in _read(file, prefix, only_shapes):
                yield name.removeprefix(prefix), leaf


def _read(file: Path, prefix: str, only_shapes: bool) -> Iterator[tuple[str, Tensor]]:
    if file.suffix == ".safetensors":
        yield from read_weights(file, only_shapes=only_shapes, prefix=prefix)
        return
    for name, leaf in read_states(file)[""].items():
        if name.startswith(prefix):
            yield name, leaf


def open_parts(path: Path) -> Parts:
    """The names in a file of weights, or in the index of several. Raises `CheckpointError` for a broken one."""
    if path.name.endswith(INDEX):
        try:
            names = {
                str(name): path.parent / Path(str(part)).name for name, part in read_json(path)["weight_map"].items()
            }
        except (KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: not an index of weights (no weight_map)") from error
        return Parts(path, names)
    if path.suffix == ".safetensors":
        try:
            named = dict(json.loads(_described(path)))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: not a safetensors file, or cut short; copy it again") from error
        return Parts(path, dict.fromkeys((name for name in named if name != "__metadata__"), path))
    return Parts(path, dict.fromkeys(read_states(path)[""], path))
