"""Open-MAGVIT2's LFQ equals the original; its codes are signs, the first channel the lowest bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.errors import CheckpointError, ConfigError
from models.ibq import lfq
from models.image_tokenizer import TokenizerOptions, open_tokenizer
from models.vqgan.config import VQGANConfig
from models.vqgan.convolutions import ConvolutionalVQ, depth_to_space
from models.weights.checks import without_weights
from tests.support.families import LFQ, SHOWO, check_golden, golden
from tests.support.paths import GOLDEN

CKPT, YAML = "imagenet_256_small.ckpt", "imagenet_256_small.yaml"


def changed(folder: Path, *path: str, value: object) -> Path:
    """A folder whose YAML has another value at a path; None takes it out."""
    folder.mkdir(parents=True)
    shutil.copy(LFQ / CKPT, folder)
    stored = yaml.safe_load((LFQ / YAML).read_text())
    inner = stored
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    if value is None:
        del inner[path[-1]]
    (folder / YAML).write_text(yaml.safe_dump(stored))
    return folder


@pytest.mark.parametrize("shape", ["", "_wide"])
def test_latents_codes_and_images_are_those_of_the_original(shape: str) -> None:
    check_golden(open_tokenizer(LFQ).network().requires_grad_(False), LFQ, shape)


def test_the_other_order_of_bits_would_be_other_codes() -> None:
    codes = golden(LFQ, "expected_codes").reshape(-1)
    latents = torch.from_numpy(golden(LFQ, "expected_latents")).reshape(-1, 10)
    highest_first = ((latents > 0).long() * 2 ** torch.arange(9, -1, -1)).sum(1).numpy()
    assert (highest_first != codes).mean() > 0.9


def test_depth_to_space_takes_four_pixels_before_channels() -> None:
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert depth_to_space(x)[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    assert not torch.equal(depth_to_space(x), torch.pixel_shuffle(x, 2))


def test_the_norms_read_the_whole_grid() -> None:
    network = open_tokenizer(LFQ).network().requires_grad_(False)
    codes = torch.from_numpy(golden(LFQ, "random_codes")[:1]).long()
    other = codes.clone()
    other[:, -1] = 0
    whole, differs = (network.reconstruct(network.quantize.lookup(each)) for each in (codes, other))
    assert (whole[..., :4, :] - differs[..., :4, :]).abs().mean() > 1e-2


def test_its_form_is_read_and_kept(tmp_path: Path) -> None:
    opened = open_tokenizer(LFQ)
    assert (opened.format, opened.spec.name, opened.spec.preprocessing) == ("lfq", "imagenet_256_small", "ibq")
    assert (opened.spec.resolution, opened.spec.grid, opened.spec.codebook_size) == (40, 10, 1024)
    assert (dict(opened.choices), opened.spec.nearest) == ({"weights": "ema"}, False)
    raw = open_tokenizer(LFQ, TokenizerOptions(weights="raw"))
    assert raw.weights_id() != opened.weights_id()
    converted = opened.convert(tmp_path / "own")
    assert (converted.codebook_id(), converted.weights_id()) == (opened.codebook_id(), opened.weights_id())
    running = converted.load(device="cpu", dtype="float32", batch_size=4, threads=1)
    codes = golden(LFQ, "png_codes")
    np.testing.assert_array_equal(running.encode(golden(LFQ, "png_pixels")), codes.reshape(len(codes), -1))
    with pytest.raises(ConfigError, match="backend vqgan-jax: has no network for"):
        converted.load(backend="vqgan-jax")


def test_models_of_the_same_signs_are_told_apart() -> None:
    """Every such model of so many bits has the same code vectors."""
    ids = {
        open_tokenizer(LFQ).codebook_id(),
        open_tokenizer(LFQ, TokenizerOptions(weights="raw")).codebook_id(),
        open_tokenizer(SHOWO, TokenizerOptions(image_size=40)).codebook_id(),
    }
    assert len(ids) == 3


def test_the_image_size_is_that_of_the_data(tmp_path: Path) -> None:
    without = changed(tmp_path / "without", "data", value=None)
    with pytest.raises(ConfigError, match=r"small\.yaml: does not say how large its images are: give image_size \(128"):
        open_tokenizer(without)
    assert open_tokenizer(without, TokenizerOptions(image_size=64)).spec.resolution == 64
    with pytest.raises(ConfigError, match="resolution 42 is not a multiple of 4"):
        open_tokenizer(LFQ, TokenizerOptions(image_size=42))


@pytest.mark.parametrize("class_path", ["src.Open_MAGVIT2.models.lfqgan_pretrain.VQModel", "lfqgan.VQModel"])
def test_both_classes_of_theirs_are_read(class_path: str, tmp_path: Path) -> None:
    folder = changed(tmp_path / "mine", "model", "class_path", value=class_path)
    assert open_tokenizer(folder).weights_id() == open_tokenizer(LFQ).weights_id()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "init_args", "n_embed"), 512, "10 signs make no 512 codes"),
        (("model", "init_args", "ddconfig", "z_channels"), 12, "z_channels 12 is not embed_dim 10"),
        (
            ("model", "init_args", "ddconfig", "ch_mult"),
            None,
            r"ch, ch_mult and num_res_blocks are needed \('ch_mult'\)",
        ),
        (("model", "init_args", "ddconfig", "num_res_blocks"), 2, r"missing: .*encoder\.down\.0\.block\.1"),
        (("model", "class_path"), "src.Open_MAGVIT2.models.lfqgan_video.VQModel", "IBQ and Open-MAGVIT2's VQModel are"),
    ],
)
def test_another_geometry_is_told(path: tuple[str, ...], value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        open_tokenizer(changed(tmp_path / "mine", *path, value=value)).weights_id()


def test_the_published_shapes_give_the_published_geometry() -> None:
    stored = json.loads((GOLDEN / "keys_lfq_262144_256.json").read_text())
    shapes = {lfq.ours(name): tuple(shape) for name, shape in stored.items() if not name.startswith("model_ema.")}
    about = {"ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 4, "z_channels": 18, "embed_dim": 18}
    config = VQGANConfig.from_dict({**about, "n_embed": 1 << 18, **lfq.network_options(about, 256)})
    built = without_weights(lambda: ConvolutionalVQ(config)).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == shapes
    assert config.factor == 16
