"""IBQ of SEED-Voken and of Emu3.5 equal the originals, which encode with averaged weights where they have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from models.weights.checks import without_weights
from tests.support.families import CHAMELEON, EMU35, IBQ, check_golden, golden
from tests.support.paths import GOLDEN

CKPT, YAML = "imagenet256_small.ckpt", "imagenet256_small.yaml"


def copied(folder: Path, source: Path = IBQ) -> Path:
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in (".ckpt", ".yaml"):
            shutil.copy(file, folder)
    return folder


def without_averages(folder: Path) -> Path:
    """The raw weights of the set alone."""
    copied(folder)
    state = torch.load(IBQ / CKPT, weights_only=True)["state_dict"]
    raw = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    torch.save({"state_dict": raw}, folder / CKPT)
    return folder


def change(folder: Path, **values: object) -> Path:
    """A folder with other `model.init_args`; None takes one out."""
    stored = yaml.safe_load((folder / YAML).read_text())
    params = stored["model"]["init_args"] | values
    stored["model"]["init_args"] = {name: value for name, value in params.items() if value is not None}
    (folder / YAML).write_text(yaml.safe_dump(stored))
    return folder


@pytest.mark.parametrize("shape", ["", "_wide"])
@pytest.mark.parametrize("source", [IBQ, EMU35], ids=["seed-voken", "emu3.5"])
def test_latents_codes_and_images_are_those_of_the_original(source: Path, shape: str) -> None:
    check_golden(open_tokenizer(source).network().requires_grad_(False), source, shape)


def test_the_nearest_row_would_be_another_code() -> None:
    network = open_tokenizer(IBQ).network()
    latents = torch.from_numpy(golden(IBQ, "expected_latents")).reshape(-1, 16)
    nearest = torch.cdist(latents, network.quantize.embedding.weight).argmin(1)
    assert (nearest != torch.from_numpy(golden(IBQ, "expected_codes")).flatten()).float().mean() > 0.6


def test_the_averages_are_read_unless_raw_weights_are_asked_for(tmp_path: Path) -> None:
    ema, raw = open_tokenizer(IBQ), open_tokenizer(IBQ, TokenizerOptions(weights="raw"))
    assert (ema.choices, raw.choices) == ({"weights": "ema"}, {"weights": "raw"})
    assert ema.weights_id() == open_tokenizer(IBQ, TokenizerOptions(weights="ema")).weights_id() != raw.weights_id()
    codes = raw.network().encode(torch.from_numpy(golden(IBQ, "inputs"))).numpy().flatten()
    assert 0.2 < (codes == golden(IBQ, "expected_codes").flatten()).mean() < 0.6
    converted = ema.convert(tmp_path / "own")
    assert (converted.choices, converted.weights_id()) == ({"weights": "ema"}, ema.weights_id())
    assert open_tokenizer(change(copied(tmp_path / "mine"), use_ema=False)).weights_id() == raw.weights_id()


def test_averages_that_are_not_there_are_told(tmp_path: Path) -> None:
    folder = without_averages(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"use_ema is true, and the averaged weights \(model_ema\.\*\) are not"):
        open_tokenizer(folder)
    with pytest.raises(ConfigError, match="holds no averaged weights"):
        open_tokenizer(folder, TokenizerOptions(weights="ema"))
    raw = open_tokenizer(folder, TokenizerOptions(weights="raw"))
    assert raw.weights_id() == open_tokenizer(IBQ, TokenizerOptions(weights="raw")).weights_id()


@pytest.mark.parametrize("form", ["folder", "file", "log folder"])
def test_every_form_is_the_same_tokenizer(form: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / "mine")
    if form == "log folder":
        for part, file in (("checkpoints", CKPT), ("configs", YAML)):
            (folder / part).mkdir()
            (folder / file).rename(folder / part / file)
    opened = open_tokenizer(folder / CKPT if form == "file" else folder)
    assert (opened.format, opened.spec.name, opened.spec.preprocessing) == ("ibq", "imagenet256_small", "ibq")
    assert opened.weights_id() == open_tokenizer(IBQ).weights_id()
    assert (opened.spec.resolution, opened.spec.codebook_size, opened.spec.nearest) == (32, 160, False)


@pytest.mark.parametrize("nested", [False, True])
def test_emu35_has_plain_weights_and_makes_no_squares(nested: bool, tmp_path: Path) -> None:
    folder = copied(tmp_path / "mine", EMU35)
    if nested:
        torch.save({"state_dict": torch.load(EMU35 / "model.ckpt", weights_only=True)}, folder / "model.ckpt")
    opened = open_tokenizer(folder)
    assert (opened.spec.name, opened.spec.preprocessing, dict(opened.choices)) == ("mine", "center_crop", {})
    assert opened.weights_id() == open_tokenizer(EMU35).weights_id()
    other = open_tokenizer(folder, TokenizerOptions(image_size=48))
    np.testing.assert_array_equal([level.attention for level in other.config.levels_down], [False, True])


def test_tamings_own_checkpoint_is_another_family() -> None:
    assert open_tokenizer(CHAMELEON).format == "taming"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ddconfig": None}, r"imagenet256_small\.yaml: has no model\.init_args\.ddconfig"),
        ({"n_embed": None}, r"imagenet256_small\.yaml: model\.init_args lacks n_embed"),
        ({"n_embed": 100}, r"misshapen: quantize\.embedding\.weight is \[160, 16\], not \[100, 16\]"),
    ],
)
def test_another_geometry_is_told(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(change(copied(tmp_path / "mine"), **changed)).weights_id()


def test_another_class_of_theirs_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path / "mine")
    text = (folder / YAML).read_text()
    (folder / YAML).write_text(
        text.replace("src.IBQ.models.ibqgan.IBQ", "src.IBQ.models.cond_transformer.Net2NetTransformer")
    )
    with pytest.raises(CheckpointError, match=r"model\.class_path is '.*Net2NetTransformer'; IBQ and Open-MAGVIT2's"):
        open_tokenizer(folder)


def test_a_missing_average_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path / "mine")
    state = torch.load(IBQ / CKPT, weights_only=True)["state_dict"]
    del state["model_ema.quant_convbias"]
    torch.save({"state_dict": state}, folder / CKPT)
    with pytest.raises(CheckpointError, match=r"do not fit the configuration; missing: quant_conv\.bias"):
        open_tokenizer(folder).weights_id()


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_ibq_16384.json").read_text())
    shapes = {name: tuple(shape) for name, shape in stored.items() if not name.startswith(("model_ema.", "loss."))}
    config = VQGANConfig(num_res_blocks=4, quantizer="dot")
    built = without_weights(lambda: VQGAN(config)).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == shapes
    assert {f"model_ema.{name.replace('.', '')}" for name in shapes} <= stored.keys()
