from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.bart.options import read_generation_defaults
from models.errors import ConfigError


def folder(path: Path, stored: object) -> Path:
    (path / "config.json").write_text(json.dumps({"d_model": 1, "generation": stored}))
    return path


def test_a_folder_that_says_nothing_is_drawn_as_in_the_notebook(tmp_path: Path) -> None:
    notebook = {"guidance_scale": 10.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    assert read_generation_defaults(tmp_path) == notebook
    (tmp_path / "config.json").write_text("{}")
    assert read_generation_defaults(tmp_path / "encoder.pt") == notebook


def test_a_folder_may_say_some_of_it(tmp_path: Path) -> None:
    found = read_generation_defaults(folder(tmp_path, {"guidance_scale": 4, "top_k": 128}))
    assert found == {"guidance_scale": 4.0, "temperature": 1.0, "top_k": 128, "top_p": 1.0}
    assert [type(value) for value in found.values()] == [float, float, int, float]


@pytest.mark.parametrize(
    "stored",
    [
        {"guidance_scale": "ten"},
        {"guidance_scale": 1e7},
        {"temperature": 0},
        {"top_k": 1.5},
        {"top_k": True},
        {"top_p": 2},
        {"top_p": None},
        {"beams": 3},
        [10],
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, stored: object) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: generation"):
        read_generation_defaults(folder(tmp_path, stored))
