from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.clip.pixels import read_clip_pixels
from models.errors import CheckpointError

try:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
except ImportError:  # transformers 4, whose only one is by Pillow
    from transformers import CLIPImageProcessor as CLIPImageProcessorPil

SIDE = 16
BASE: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": SIDE}


def written(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(16, 16), (33, 47), (47, 33), (9, 30), (5, 5), (100, 17)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": SIDE},  # as old files have it: the shortest side
        {"size": {"shortest_edge": 20}, "crop_size": {"height": SIDE, "width": SIDE}},
        {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False},
        {"do_resize": False},  # cut, or with a black border
        {"resample": 2},
        {"resample": 1},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [0.5, 0.6, 0.7]},
    ],
)
def test_pixels_are_those_of_transformers(changes: dict[str, Any], shape: tuple[int, int], tmp_path: Path) -> None:
    values = BASE | changes
    pixels = noise(*shape)
    ours = read_clip_pixels(written(tmp_path, values), SIDE)(pixels)
    theirs = CLIPImageProcessorPil(**values)(pixels, return_tensors="np")["pixel_values"][0]
    assert ours.dtype == np.float32
    assert ours.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_empty_file_means_the_values_of_the_published_models(tmp_path: Path) -> None:
    pixels = noise(60, 90)
    ours = read_clip_pixels(written(tmp_path, {}), 224)(pixels)
    np.testing.assert_allclose(
        ours, CLIPImageProcessorPil()(pixels, return_tensors="np")["pixel_values"][0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("pixels", [noise(4, 4)[..., 0], noise(4, 4).astype(np.float32), noise(4, 0)])
def test_arrays_that_are_no_image_are_refused(pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected pixels uint8 \[H, W, 3\]"):
        read_clip_pixels(written(tmp_path, BASE), SIDE)(pixels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 15}, "makes 15x15 pixels, the model takes 16x16"),
        ({"do_center_crop": False}, "makes images of no fixed size"),
        ({"size": {"longest_edge": 16}}, "longest_edge"),
        ({"size": 0}, "a side of 0 pixels"),
        ({"resample": 17}, "17"),
        ({"image_std": [0.5, 0.0, 0.5]}, "not positive"),
        ({"image_mean": [0.5]}, "image_mean has 1 values"),
        ({"rescale_factor": "a bit"}, "'a bit' is not a number"),
        ({"crop_size": None}, "a side of None pixels"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_clip_pixels(written(tmp_path, BASE | changes), SIDE)
