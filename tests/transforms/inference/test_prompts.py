"""`GeneratePictures` in a user's pipeline draws the same images as `vqbeam generate`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.run_transform import outcome
from tests.support.tiny_generator import SIDE, generate, write_prompts
from transforms import GeneratePictures
from transforms.errors import RowRejected, UsageError
from transforms.inference.prompts import canonical

PROMPTS: list[dict[str, Any]] = [
    {"key": "a", "prompt": "a red apple", "kind": "fruit"},
    {"key": "b", "prompt": "rocket", "seed": 7, "images": 5, "temperature": 0.5},
    {"key": "c", "prompt": "a blue rocket", "guidance_scale": 1.0, "top_k": 3},
]


def drawing(model: Path, **options: Any) -> GeneratePictures:
    return GeneratePictures(str(model), batch_size=4, device="cpu", threads=1, **options)


def test_images_are_those_of_the_command_byte_for_byte(tiny_generator: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", PROMPTS)
    flags = ("--images_per_prompt", 2, "--seed", 3, "--image_layout", "parquet", "--keep_tokens", "--clip")
    command = generate(tiny_generator, tmp_path / "out", "--input", prompts, *flags, tiny_generator)
    assert command.code == 0, command.err
    expected = sorted(command.rows(), key=lambda row: (row["key"], row["sample"]))

    rows, rejected = outcome(drawing(tiny_generator, images_per_prompt=2, seed=3, clip=str(tiny_generator)), PROMPTS)

    assert rejected == []
    assert [(row["key"], row["sample"], row["seed"]) for row in rows] == [
        *(("a", sample, 3) for sample in range(2)),
        *(("b", sample, 7) for sample in range(5)),
        *(("c", sample, 3) for sample in range(2)),
    ]
    for row, other in zip(rows, expected, strict=True):
        assert row["image"] == other["image"]["bytes"]
        assert row["encoding"].tolist() == other["encoding"]
        assert row["encoding"].dtype == np.uint16
        for name in ("key", "prompt", "sample", "seed", "width", "height", "clip_score"):
            assert row[name] == other[name]
    assert [row.get("kind") for row in rows[:3]] == ["fruit", "fruit", None]


def test_a_plain_string_has_the_key_of_its_text_and_its_images_do_not_depend_on_neighbours(
    tiny_generator: Path,
) -> None:
    together, _ = outcome(drawing(tiny_generator), ["a red apple", "rocket", "a blue apple", "rocket on apple"])
    alone, _ = outcome(drawing(tiny_generator), ["rocket"])
    assert len({row["image"] for row in together}) == 4
    assert [row["image"] for row in together if row["prompt"] == "rocket"] == [alone[0]["image"]]
    assert {"key", "prompt", "sample", "seed", "encoding", "image", "width", "height"} == set(alone[0])
    assert Image.open(io.BytesIO(alone[0]["image"])).size == (SIDE, SIDE)


def test_each_prompt_that_cannot_be_drawn_is_rejected_once(tiny_generator: Path) -> None:
    bad = [
        ({"prompt": " ", "images": 3}, "empty_prompt"),
        ({"prompt": None}, "empty_prompt"),
        ({"text": "a"}, "empty_prompt"),
        ({"prompt": 5}, "schema_mismatch"),
        ({"prompt": "a" * 70_000}, "prompt_too_long"),
        ({"prompt": "a", "temperature": 0}, "bad_value"),
        ({"prompt": "a", "images": 1.5}, "bad_value"),
    ]
    rows, rejected = outcome(drawing(tiny_generator), [*(row for row, _ in bad), "a"])
    assert [row["prompt"] for row in rows] == ["a"]
    assert [(letter["row"], letter["error"]) for letter in rejected] == bad


@pytest.mark.parametrize("row", [{"prompt": "a \ud800"}, {"prompt": "a", "key": "\udfff"}])
def test_half_a_surrogate_pair_is_a_broken_record(row: dict[str, str]) -> None:
    with pytest.raises(RowRejected, match="is not valid text"):
        canonical(row)


def test_built_without_guidance_no_prompt_can_ask_for_it(tiny_generator: Path) -> None:
    asks = {"prompt": "rocket", "guidance_scale": 3}
    rows, rejected = outcome(drawing(tiny_generator, guidance_scale=1, image_format="webp"), ["a", asks])
    assert [Image.open(io.BytesIO(row["image"])).format for row in rows] == ["WEBP"]
    assert [(letter["row"], letter["error"]) for letter in rejected] == [(asks, "bad_value")]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"image_format": "tga"},
        {"temperature": 0},
        {"top_z": 1},
        {"images_per_prompt": 0},
        {"seed": -1},
        {"guidance_scale": float("nan")},
    ],
)
def test_meaningless_options_are_refused_when_the_pipeline_is_built(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GeneratePictures("emoji", **options)


def test_an_element_that_is_no_prompt_stops_the_pipeline_with_advice(tiny_generator: Path) -> None:
    with pytest.raises(UsageError, match="takes strings, or dicts with 'prompt'; an element is int"):
        outcome(drawing(tiny_generator), [3])
