from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.__main__ import main
from tests.support.vqgan_checkpoints import (
    GOLDEN_VQGAN,
    TINY,
    golden_weights,
    load_vqgan,
    min_dalle_weights,
    random_vqgan,
    write_taming,
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    shades = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(shades).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def test_a_checkpoint_is_converted_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(GOLDEN_VQGAN), str(tmp_path / "own"), "--name", "golden"]) == 0
    shown = capsys.readouterr().out
    assert "golden, encoder and decoder, 64x64 pixels -> 16x16 codes of 64, pixels in [0, 1]" in shown
    assert json.loads((tmp_path / "own" / "config.json").read_text())["name"] == "golden"
    converted = load_vqgan(tmp_path / "own").state_dict()
    assert all(torch.equal(converted[name], leaf) for name, leaf in golden_weights().items())


@pytest.mark.parametrize("flag", [["--pixel_range", "-1,1"], ["--pixel_range=-1,1"]])
def test_the_pixel_range_can_be_overridden(flag: list[str], tmp_path: Path) -> None:
    assert main(["convert", str(GOLDEN_VQGAN), str(tmp_path / "own"), *flag]) == 0
    assert load_vqgan(tmp_path / "own").config.pixel_range == (-1.0, 1.0)


def test_a_remote_checkpoint_is_converted(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(GOLDEN_VQGAN), "/golden", recursive=True)
    command = ["convert", "memory://golden", str(tmp_path / "own"), "--model_cache", str(tmp_path / "cache")]
    assert main(command) == 0
    assert (tmp_path / "own" / "model.safetensors").is_file()
    store.rm("/golden", recursive=True)


def test_check_prints_both_pixel_ranges_and_warns_when_the_other_wins(
    tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that draws mid-grey in [-1, 1] draws black in [0, 1]."""
    model = random_vqgan()
    model.decoder.conv_out.weight.zero_()
    model.decoder.conv_out.bias.zero_()
    write_taming(tmp_path / "source", dict(model.state_dict()), TINY)
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "right"), "--check", image]) == 0
    right = capsys.readouterr()
    assert (
        main(["convert", str(tmp_path / "source"), str(tmp_path / "wrong"), "--pixel_range", "0,1", "--check", image])
        == 0
    )
    wrong = capsys.readouterr()
    lines = {line.split(":")[0]: float(line.split()[4]) for line in right.out.splitlines() if "PSNR" in line}
    assert lines["pixels in [-1, 1]"] > lines["pixels in [0, 1]"] + 1
    assert "[-1, 1]" in next(line for line in right.out.splitlines() if "as written" in line)
    assert right.err == ""
    assert "pixels in [-1, 1] reconstruct" in wrong.err
    assert "convert again with --pixel_range -1,1" in wrong.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["SRC", "OUT", "--pixel_range", "zero,one"], "'zero,one': expected LOW,HIGH"),
        (["SRC", "OUT", "--pixel_range", "1,0"], "LOW must be below HIGH"),
        (["SRC", "gs://bucket/model"], "DST must be a local folder"),
        (["SRC", "OUT", "--check", "missing.png"], "--check missing.png"),
        (["SRC", "OUT", "--chek", "missing.png"], "did you mean --check?"),
        (["nowhere", "OUT"], "no model 'nowhere'"),
    ],
)
def test_wrong_usage_is_told(argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {"SRC": str(GOLDEN_VQGAN), "OUT": str(tmp_path / "own")}
    assert main(["convert", *(paths.get(word, word) for word in argv)]) == 2
    assert message in capsys.readouterr().err


def test_a_model_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", str(GOLDEN_VQGAN), str(tmp_path / "own")]
    assert main(command) == 0
    before = (tmp_path / "own" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 2
    assert "holds config.json and model.safetensors already" in capsys.readouterr().err
    assert (tmp_path / "own" / "model.safetensors").stat().st_mtime_ns == before


def test_a_checkpoint_cut_short_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN_VQGAN, tmp_path / "source")
    whole = (tmp_path / "source" / "flax_model.msgpack").read_bytes()
    (tmp_path / "source" / "flax_model.msgpack").write_bytes(whole[: len(whole) // 2])
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "own")]) == 2
    assert "flax_model.msgpack: the file is cut short" in capsys.readouterr().err


def test_a_decoder_alone_is_converted_and_cannot_be_checked(
    tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(min_dalle_weights(dict(random_vqgan().state_dict())), tmp_path / "detoker.pt")
    assert main(["convert", str(tmp_path / "detoker.pt"), str(tmp_path / "own"), "--check", image]) == 2
    captured = capsys.readouterr()
    assert "decoder only" in captured.out
    assert "--check needs an encoder" in captured.err
    assert not load_vqgan(tmp_path / "own").has_encoder
