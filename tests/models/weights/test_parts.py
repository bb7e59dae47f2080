"""Looking for weights by their names, in files that may be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.errors import CheckpointError
from models.weights.parts import candidates, mentions, open_parts

WEIGHTS = {"a.encoder.weight": torch.ones(2, 3), "a.encoder.bias": torch.zeros(2), "b.weight": torch.ones(1)}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "old.pt"])
def test_names_are_found_in_any_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=name != "old.pt")
    assert candidates(tmp_path) == candidates(path) == [path]
    assert mentions(path, "encoder.weight")
    assert not mentions(path, "decoder.weight")
    parts = open_parts(path)
    assert parts.prefix_of("encoder.weight") == "a."
    read = dict(parts.read("a."))
    assert {name: tuple(leaf.shape) for name, leaf in read.items()} == {"encoder.weight": (2, 3), "encoder.bias": (2,)}
    shapes = dict(parts.read("a.", only_shapes=True))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {name: leaf.shape for name, leaf in read.items()}
    with pytest.raises(CheckpointError, match=r"holds no coder\.weight"):
        parts.prefix_of("coder.weight")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"text"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_broken_file_mentions_nothing_and_is_named_when_read(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert not mentions(path, "encoder.weight")
    with pytest.raises(CheckpointError, match=name):
        open_parts(path).prefix_of("encoder.weight")


def test_a_torn_archive_mentions_nothing(tmp_path: Path) -> None:
    path = tmp_path / "torn.pt"
    torch.save(WEIGHTS, path)
    data = path.read_bytes()
    path.write_bytes(b"\0" * 100 + data[100:])
    assert not mentions(path, "encoder.weight")


def test_an_index_leads_to_its_parts_and_nowhere_else(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.encoder.weight": "../../one.safetensors"}}))
    parts = open_parts(candidates(tmp_path)[0])
    assert parts.files("a.") == (tmp_path / "one.safetensors",)
    assert set(dict(parts.read("a."))) == {"encoder.weight", "encoder.bias"}
