"""Read the arrays of a flax msgpack checkpoint one at a time, without jax: for vqgan-jax and dalle-mini models.

The format is flax's `serialization.py`: nested maps with string keys, whose leaves are msgpack extensions holding
(shape, dtype name, bytes); a leaf above 1 GiB is a map of chunks. Each leaf is read straight into its own tensor, so a
file costs no memory beyond what the caller keeps. The package msgpack decodes through buffers: its peak is 300 to
1,000 MiB higher for 480 MiB of weights.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterator
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError
from models.weights import native
from models.weights.native import CONFIG_NAME, read_json

WEIGHTS_NAME = "flax_model.msgpack"
INDEX_NAME = "flax_model.msgpack.index.json"
CHUNKED_MARK = "__msgpack_chunked_array__"
OWN_PAGES = 1 << 16  # bytes
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}  # flax's names and torch's
ARRAY_TYPES = (1, 3)  # extension types of flax: an array, and a numpy scalar written as one

DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def describes(folder: Path, option: str) -> bool:
    """Whether a folder has weights, flax's or ours, and an `option` in the `config.json` beside them."""
    weights = [folder / name for name in (native.WEIGHTS_NAME, WEIGHTS_NAME, INDEX_NAME)]
    return option in native.json_beside(folder) and any(file.is_file() for file in weights)


def weight_files(folder: Path) -> list[Path]:
    """The msgpack files of a checkpoint folder: one, or those that the index of a split checkpoint names.

    Empty if the folder holds none. Raises `CheckpointError` for a broken index or a file missing from the set.
    """
    index_path = folder / INDEX_NAME
    if not index_path.is_file():
        single = folder / WEIGHTS_NAME
        return [single] if single.is_file() else []
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index_path}: not an index of a split flax checkpoint ({error})") from error
    absent = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{index_path}: names {', '.join(absent[:3])}, which the folder lacks; copy all parts")
    return [folder / name for name in names]


def read_folder(folder: Path, network: str, option: str) -> tuple[list[Path], dict[str, Any]]:
    """The `weight_files` of a folder and its `config.json`; both empty if there are no such weights.

    Raises `CheckpointError` if the configuration is missing, or lacks the `option` that marks the `network`.
    """
    files, path = weight_files(folder), folder / CONFIG_NAME
    if not files:
        return [], {}
    if not path.is_file():
        raise CheckpointError(f"{folder}: {files[0].name} has no {CONFIG_NAME} beside it; copy that as well")
    values = read_json(path)
    if option not in values:
        kind = values.get("model_type") or "unknown"
        raise CheckpointError(f"{path}: describes no {network} (model_type {kind!r}, no {option})")
    return files, values


def read_leaves(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield ("encoder/conv_in/kernel", tensor) in file order, each tensor in separate memory.

    Raises `CheckpointError` if the file is cut short or is not a flax checkpoint.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        yield from reader.tree("")
        if reader.left():
            raise CheckpointError(f"{path}: {reader.left()} bytes follow the last weight; it is not a flax checkpoint")


class _Reader:
    """A cursor over msgpack data that understands what flax writes."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.torch = import_module("torch")  # only here: a folder is looked at without it

    def left(self) -> int:
        return self.size - self.file.tell()

    def tree(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        count = self.header("map", prefix)
        for i in range(count):
            key = self.text(prefix)
            if i == 0 and key == CHUNKED_MARK:
                yield prefix, self.chunked(prefix, count)
                return
            name = f"{prefix}/{key}" if prefix else key
            if self.peek()[0] == "map":
                yield from self.tree(name)
            else:
                yield name, self.array(name)

    def array(self, name: str) -> Tensor:
        """A leaf: an extension of flax's array type."""
        length = self.header("ext", name)
        end = self.file.tell() + length
        if self.header("array", name) != 3:
            raise self.bad(name, "an array is not (shape, dtype, bytes)")
        shape = [self.header("int", name) for _ in range(self.header("array", name))]
        dtype_name = self.text(name)
        if dtype_name not in DTYPES:
            raise self.bad(name, f"dtype {dtype_name!r} is not supported")
        dtype: torch.dtype = getattr(self.torch, dtype_name)
        nbytes = self.header("bin", name)
        if nbytes != math.prod(shape) * dtype.itemsize or self.file.tell() + nbytes != end:
            raise self.bad(name, f"{nbytes} bytes do not make {dtype_name} {shape}")
        tensor = self.empty(shape, dtype)
        if nbytes and self.file.readinto(tensor.reshape(-1).view(self.torch.uint8).numpy().data) != nbytes:
            raise self.cut_short(name)
        return tensor

    def chunked(self, name: str, entries: int) -> Tensor:
        """A leaf above 1 GiB: its shape, then pieces of the flattened array. The mark's key has been read."""
        self.header("bool", name)
        if entries != 3 or self.text(name) != "shape":
            raise self.bad(name, "a chunked array does not begin with its shape")
        shape = []
        for _ in range(self.header("map", name)):
            self.text(name)
            shape.append(self.header("int", name))
        if self.text(name) != "chunks":
            raise self.bad(name, "a chunked array has no chunks")
        whole: Tensor | None = None
        start = 0
        for _, piece in self.tree(name):
            if whole is None:
                whole = self.empty([math.prod(shape)], piece.dtype)
            if start + piece.numel() > whole.numel():
                raise self.bad(name, f"its chunks hold more than {shape}")
            whole[start : start + piece.numel()] = piece
            start += piece.numel()
        if whole is None or start != whole.numel():
            raise self.bad(name, f"its chunks hold less than {shape}")
        return whole.reshape(shape)

    def empty(self, shape: list[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor; a large one in separate pages, which return to the system when it is dropped.

        With malloc, the leaves that a caller drops would leave holes between those that it keeps.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < OWN_PAGES:
            return self.torch.empty(shape, dtype=dtype)
        return self.torch.frombuffer(mmap.mmap(-1, nbytes), dtype=dtype).reshape(shape)

    def text(self, name: str) -> str:
        kind = "bin" if self.peek()[0] == "bin" else "str"
        raw = self.take(self.header(kind, name), name)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(name, "a name is not UTF-8") from error

    def take(self, count: int, name: str) -> bytes:
        raw = self.file.read(count)
        if len(raw) != count:
            raise self.cut_short(name)
        return raw

    def peek(self) -> tuple[str, int, int]:
        """The kind of the next value, its first byte, and the bytes of length that follow it; the cursor stays."""
        raw = self.file.read(1)
        if not raw:
            raise self.cut_short("")
        self.file.seek(-1, os.SEEK_CUR)
        return next((kind, raw[0], width) for last, kind, width in _TYPES if raw[0] <= last)

    def header(self, expected: str, name: str) -> int:
        """Read the head of a value of kind `expected`: its length, or the value itself for an integer or boolean."""
        kind, first, width = self.peek()
        if kind != expected:
            raise self.bad(name, f"found {kind} where {expected} was expected")
        self.take(1, name)
        if width:
            length = int.from_bytes(self.take(width, name), "big")
        else:
            length = 1 << first - _FIRST_FIXED_EXT if kind == "ext" else first & _LENGTH_BITS[kind]
        if kind == "ext":
            ext_type = int.from_bytes(self.take(1, name), "big", signed=True)
            if ext_type not in ARRAY_TYPES:
                raise self.bad(name, f"msgpack extension {ext_type} is not an array")
        if kind in ("ext", "bin", "str") and length > self.left():
            raise self.cut_short(name)
        return length

    def bad(self, name: str, what: str) -> CheckpointError:
        where = f"at {name!r}" if name else "at its beginning"
        return CheckpointError(f"{self.path}: not a flax checkpoint: {where} {what}; copy it again")

    def cut_short(self, name: str) -> CheckpointError:
        where = f" within {name!r}" if name else ""
        return CheckpointError(f"{self.path}: the file is cut short{where} ({self.size} bytes); copy it again")


# The type bytes of msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md): the last one of each kind, and how
# many bytes of length follow it; 0 if the byte itself holds the length.
_TYPES = (
    (0x7F, "int", 0), (0x8F, "map", 0), (0x9F, "array", 0), (0xBF, "str", 0), (0xC1, "nil", 0), (0xC3, "bool", 0),
    (0xC4, "bin", 1), (0xC5, "bin", 2), (0xC6, "bin", 4), (0xC7, "ext", 1), (0xC8, "ext", 2), (0xC9, "ext", 4),
    (0xCB, "float", 0), (0xCC, "int", 1), (0xCD, "int", 2), (0xCE, "int", 4), (0xCF, "int", 8),
    (0xD3, "signed int", 0), (0xD8, "ext", 0), (0xD9, "str", 1), (0xDA, "str", 2), (0xDB, "str", 4),
    (0xDC, "array", 2), (0xDD, "array", 4), (0xDE, "map", 2), (0xDF, "map", 4), (0xFF, "signed int", 0),
)  # fmt: skip
_FIRST_FIXED_EXT = 0xD4  # of 1 byte; the following ones of 2, 4, 8, 16
_LENGTH_BITS = {"int": 0x7F, "map": 0x0F, "array": 0x0F, "str": 0x1F, "bool": 0x01}
