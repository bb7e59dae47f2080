"""The class of docs/models.md, as a module that can be imported, and its files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.support.paths import ROOT

NAME = "colours:Colours"
CODES = 216


def source() -> str:
    """The snippet of the page."""
    found = re.search(r"cat > colours\.py <<'END'\n(.*?)^END$", (ROOT / "docs" / "models.md").read_text(), re.S | re.M)
    assert found is not None
    return found[1]


def write_module(folder: Path, name: str = "colours", **changes: str) -> Path:
    """The module, with `changes` from one text to another."""
    text = source()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def write_colours(path: Path, seed: int = 0) -> Path:
    np.savetxt(path, np.random.default_rng(seed).integers(0, 256, (CODES, 3)), "%d", ",")
    return path


def colours(table: Path) -> np.ndarray:
    """float64 [codes, 3]."""
    return np.loadtxt(table, delimiter=",")


def expected_codes(table: Path, images: np.ndarray) -> np.ndarray:
    """int [N, T] of uint8 [N, H, W, 3], another way round."""
    rows = colours(table)
    n, h, w, _ = images.shape
    codes = np.zeros((n, h // 8, w // 8), int)
    for number, y, x in np.ndindex(codes.shape):
        mean = images[number, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].reshape(-1, 3).mean(0)
        codes[number, y, x] = np.linalg.norm(rows - mean, axis=1).argmin()
    return codes.reshape(n, -1)
