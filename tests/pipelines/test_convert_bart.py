"""`vqbeam convert` on folders with a DALL·E BART, alone and beside a VQGAN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bart.checkpoint import open_bart, save_bart
from models.bart.config import DalleBartConfig
from models.find import Model
from models.vqgan import checkpoint as vqgans
from models.vqgan.checkpoint import open_checkpoint, save_vqgan
from pipelines.__main__ import main
from tests.support.bart_checkpoints import GOLDEN_BART, TINY_BART, random_bart, write_dalle_mini, write_min_dalle
from tests.support.vqgan_checkpoints import TINY, min_dalle_weights, random_vqgan

PAIRED = replace(
    TINY_BART, image_length=TINY.spec(name="").codes_per_image, image_vocab_size=32, decoder_start_token_id=32
)
MINI_WIDTH = replace(
    PAIRED, image_length=256, d_model=1024, encoder_layers=1, decoder_layers=1, encoder_attention_heads=16,
    decoder_attention_heads=16,
)  # fmt: skip


def write_bart(folder: Path, config: DalleBartConfig = TINY_BART) -> Path:
    return write_dalle_mini(folder, dict(random_bart(config).state_dict()), config)


def test_a_bart_is_converted_with_its_tokenizer_and_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bart(tmp_path / "source")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "own"), "--name", "mine"]) == 0
    captured = capsys.readouterr()
    assert "mine, DALL·E BART, 2+3 layers of width 16, 8 pieces of text -> 9 codes of 12" in captured.out
    assert captured.err == ""
    written = open_bart(tmp_path / "own")
    assert (written.format, written.name, written.config) == ("vqbeam", "mine", TINY_BART)
    assert json.loads((tmp_path / "own" / "vocab.json").read_text()) == {"file": "vocab.json"}


def test_a_missing_tokenizer_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(GOLDEN_BART), str(tmp_path / "own")]) == 0
    assert f"{GOLDEN_BART} has no tokenizer" in capsys.readouterr().err


def test_half_a_tokenizer_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_bart(tmp_path / "source")
    for name in ("tokenizer.json", "vocab.json"):
        (source / name).unlink()
    assert main(["convert", str(source), str(tmp_path / "own")]) == 0
    assert f"{source} has no tokenizer" in capsys.readouterr().err


def test_the_cache_of_min_dalle_becomes_a_folder_of_both(tmp_path: Path) -> None:
    root = tmp_path / "pretrained"
    write_min_dalle(root / "dalle_bart_mini", dict(random_bart(MINI_WIDTH).state_dict()))
    (root / "vqgan").mkdir()
    torch.save(min_dalle_weights(dict(random_vqgan().state_dict())), root / "vqgan" / "detoker.pt")
    assert main(["convert", str(root), str(tmp_path / "own")]) == 0
    assert Model(tmp_path / "own").bart.config == MINI_WIDTH
    assert vqgans.find(tmp_path / "own") == tmp_path / "own" / "vqgan"
    assert not Model(tmp_path / "own").tokenizer.spec.has_encoder


def test_a_folder_like_the_embedded_model_keeps_its_clip(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "own"
    save_vqgan(random_vqgan(), source, name="tiny")
    save_bart(random_bart(PAIRED), source / "dalle_bart", name="tiny")
    (source / "clip").mkdir()
    (source / "clip" / "config.json").write_text('{"model_type": "clip"}')
    assert main(["convert", str(source), str(target)]) == 0
    assert (Model(target).bart_path, vqgans.find(target)) == (target / "dalle_bart", target / "vqgan")
    assert Model(target).clip_path == target / "clip"
    assert open_checkpoint(target / "vqgan").weights_id() == open_checkpoint(source).weights_id()


@pytest.mark.parametrize("flag", [["--pixel_range=-1,1"], ["--check", "photo.png"]])
def test_flags_of_a_vqgan_are_refused_for_a_bart_alone(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(GOLDEN_BART), str(tmp_path / "own"), *flag]) == 2
    assert "is about a VQGAN" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_a_pair_that_does_not_belong_together_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_vqgan(random_vqgan(), tmp_path / "source" / "vqgan", name="tiny")
    write_bart(tmp_path / "source" / "dalle_bart")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "own")]) == 2
    assert "the BART draws 9 codes an image and the VQGAN paints 8x8 = 64" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_no_part_is_written_where_another_is_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_vqgan(random_vqgan(), tmp_path / "source", name="tiny")
    write_bart(tmp_path / "source" / "dalle_bart", PAIRED)
    save_vqgan(random_vqgan(seed=1), tmp_path / "own" / "vqgan", name="other")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "own")]) == 2
    assert "own/vqgan: holds config.json and model.safetensors already" in capsys.readouterr().err
    assert not (tmp_path / "own" / "dalle_bart").exists()


def test_an_option_that_is_not_built_ends_the_conversion_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bart(tmp_path / "source")
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    (tmp_path / "source" / "config.json").write_text(json.dumps({**config, "ln_positions": "swinv2"}))
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "own")]) == 2
    assert "config.json: DALL·E BART config: ln_positions swinv2 is not supported" in capsys.readouterr().err
