from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from models.errors import CheckpointError
from models.weights.pickled import read_state


class MakeFolder:
    """Pickles to a call that would leave a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (str(self.path),))


def test_weights_are_read_from_a_bare_state_dict(tmp_path: Path) -> None:
    torch.save(OrderedDict(a=torch.arange(3.0)), tmp_path / "x.pt")
    assert torch.equal(read_state(tmp_path / "x.pt")["a"], torch.arange(3.0))


def test_weights_are_read_from_the_state_dict_of_a_training_checkpoint(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": {"a": torch.ones(2)}, "lr_schedulers": []}, tmp_path / "x.ckpt")
    assert list(read_state(tmp_path / "x.ckpt")) == ["a"]


def test_the_format_from_before_pytorch_1_6_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert read_state(tmp_path / "x.pt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, new_format: bool) -> None:
    content = {"state_dict": {"a": torch.ones(1)}, "callbacks": MakeFolder(tmp_path / "ran")}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"x\.ckpt: .*more than weights \(posix\.mkdir\).*save only its"):
        read_state(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_callback_class_that_lightning_leaves_in_checkpoints_is_read_without_lightning(tmp_path: Path) -> None:
    stand_in = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    data = tmp_path / "plain.ckpt"
    torch.save({"callbacks": {"MARK": {"best": 1.5}}, "state_dict": {"a": torch.ones(2)}}, data)
    # A global cannot be written for a class that is not installed: replace the marking string by its opcode.
    name = b"c" + stand_in.__module__.encode() + b"\nModelCheckpoint\n"
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(tmp_path / "x.ckpt", "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content.count(b"X\x04\x00\x00\x00MARK") == 1
                content = content.replace(b"X\x04\x00\x00\x00MARK", name)
            target.writestr(entry.filename, content)
    assert read_state(tmp_path / "x.ckpt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, new_format: bool, share: float) -> None:
    torch.save({"a": torch.randn(500)}, tmp_path / "x.pt", _use_new_zipfile_serialization=new_format)
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"x\.pt: .*cut short.*copy it again"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds a dict"),
        ({"a": torch.ones(1), "note": "x"}, r"not every entry is a weight: 'note' \(str\)"),
    ],
)
def test_what_is_not_named_weights_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_state(tmp_path / "x.pt")


def test_a_page_instead_of_a_checkpoint_is_reported_by_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("<html>404 not found</html>")
    with pytest.raises(CheckpointError, match=r"it begins with b'<html>404 not found<'; copy it again") as raised:
        read_state(tmp_path / "x.pt")
    assert "weights_only" not in str(raised.value)


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match=r"x\.pt: not a PyTorch checkpoint"):
        read_state(tmp_path / "x.pt")
