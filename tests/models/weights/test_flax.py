from __future__ import annotations

import json
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch

from models.errors import CheckpointError
from models.weights.flax import read_leaves, weight_files
from tests.support.vqgan_checkpoints import flax_array


def packed(tree: object) -> bytes:
    return msgpack.packb(tree, use_bin_type=True)


def write(path: Path, tree: object) -> Path:
    path.write_bytes(packed(tree))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64", "uint8", "bool"])
def test_a_leaf_keeps_its_values_shape_and_dtype(tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (found,) = read_leaves(write(tmp_path / "x.msgpack", {"a": {"b": flax_array(values)}}))
    assert found[0] == "a/b"
    assert str(found[1].dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(found[1].numpy(), values)


def test_bfloat16_is_read_without_a_numpy_type_for_it(tmp_path: Path) -> None:
    values = torch.randn(5, 3).to(torch.bfloat16)
    ((_, leaf),) = read_leaves(write(tmp_path / "x.msgpack", {"a": flax_array(values)}))
    assert torch.equal(leaf, values)


@pytest.mark.parametrize("size", [0, 1, 2, 40, 200, 70_000])
def test_leaves_of_every_header_width_are_read(tmp_path: Path, size: int) -> None:
    values = np.random.default_rng(0).random(size, dtype=np.float32)
    ((_, leaf),) = read_leaves(write(tmp_path / "x.msgpack", {"a": flax_array(values)}))
    np.testing.assert_array_equal(leaf.numpy(), values)


@pytest.mark.parametrize("head", [b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"])
def test_maps_of_every_header_width_are_read(tmp_path: Path, head: bytes) -> None:
    whole = packed({"layer": {"k" * 300: flax_array(np.float32(3))}})
    assert whole[:1] == b"\x81"
    (tmp_path / "x.msgpack").write_bytes(head + whole[1:])
    ((name, leaf),) = read_leaves(tmp_path / "x.msgpack")
    assert (name, leaf.item()) == ("layer/" + "k" * 300, 3.0)


def test_a_leaf_in_chunks_is_put_together(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float32).reshape(5, 6)
    flat = values.reshape(-1)
    chunks = {str(i): flax_array(flat[start : start + 8]) for i, start in enumerate(range(0, 30, 8))}
    tree = {
        "a": {"__msgpack_chunked_array__": True, "shape": {"0": 5, "1": 6}, "chunks": chunks},
        "b": flax_array(flat),
    }
    leaves = dict(read_leaves(write(tmp_path / "x.msgpack", tree)))
    assert list(leaves) == ["a", "b"]
    np.testing.assert_array_equal(leaves["a"].numpy(), values)


@pytest.mark.parametrize("kept", [2, 5])
def test_chunks_that_do_not_add_up_are_refused(tmp_path: Path, kept: int) -> None:
    chunks = {str(i): flax_array(np.zeros(4, np.float32)) for i in range(kept)}
    tree = {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 4, "1": 3}, "chunks": chunks}}
    with pytest.raises(CheckpointError, match=r"at 'a' its chunks hold (more|less) than \[4, 3\]"):
        list(read_leaves(write(tmp_path / "x.msgpack", tree)))


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    tree = {"encoder": {"kernel": flax_array(np.ones((3, 5), np.float32)), "bias": flax_array(np.ones(300, np.int8))}}
    whole = packed(tree)
    path = tmp_path / "x.msgpack"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut short.*copy it again"):
            list(read_leaves(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x95pickle", "bytes follow"),
        (b"PK\x03\x04", "found int where map was expected"),
        (packed([1, 2]), "found array where map was expected"),
        (packed({"a": 3}), "at 'a' found int where ext was expected"),
        (packed({"a": None}), "found nil where ext was expected"),
        (packed({1: 2}), "found int where str was expected"),
        (packed({"a": msgpack.ExtType(2, b"complex")}), "extension 2 is not an array"),
        (packed({"a": msgpack.ExtType(1, packed(((2,), "float32", b"123")))}), "3 bytes do not make float32"),
        (packed({"a": msgpack.ExtType(1, packed(((2,), "complex64", b"")))}), "dtype 'complex64' is not supported"),
        (packed({"a": msgpack.ExtType(1, packed([(2,), "float32"]))}), r"not \(shape, dtype, bytes\)"),
        (packed({"a": flax_array(np.ones(2))}) + b"x", "1 bytes follow"),
        (b"\x81\xa2\xff\xfe\xc0", "not UTF-8"),
    ],
)
def test_what_flax_does_not_write_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        list(read_leaves(path))


def test_a_length_far_beyond_the_file_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"\x81\xa1a\xc9\xff\xff\xff\xff\x01" + packed(((1 << 30,), "float32", b"")))
    with pytest.raises(CheckpointError, match="cut short"):
        list(read_leaves(path))


def test_a_split_checkpoint_is_found_by_its_index(tmp_path: Path) -> None:
    parts = ["flax_model-00001-of-00002.msgpack", "flax_model-00002-of-00002.msgpack"]
    write(tmp_path / parts[0], {"a": {"x": flax_array(np.ones(1))}})
    write(tmp_path / parts[1], {"a": {"y": flax_array(np.ones(2))}})
    index = {"metadata": {"total_size": 24}, "weight_map": {"a/x": parts[0], "a/y": parts[1]}}
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps(index))
    names = [name for file in weight_files(tmp_path) for name, _ in read_leaves(file)]
    assert names == ["a/x", "a/y"]


@pytest.mark.parametrize("part", ["gone.msgpack", "../outside.msgpack"])
def test_an_index_that_names_files_that_are_not_in_the_folder_is_refused(tmp_path: Path, part: str) -> None:
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(CheckpointError, match=f"names {part}"):
        weight_files(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_broken_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "flax_model.msgpack.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="not an index"):
        weight_files(tmp_path)
