"""Contact sheets: originals with their reconstructions below, to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GAP = 4  # pixels between a pair and the next row


def contact_sheet(originals: np.ndarray, outputs: np.ndarray, columns: int, scale: int = 2) -> np.ndarray:
    """Rows of `columns` originals, each row with its reconstructions under it: uint8 [H, W, 3].

    `originals`, `outputs`: uint8 [N, h, w, 3]; a last row that is not full is filled with white.
    """
    count, height, width, _ = originals.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (2 * height + GAP) - GAP, columns * width, 3), 255, dtype=np.uint8)
    for n in range(count):
        y, x = (n // columns) * (2 * height + GAP), (n % columns) * width
        sheet[y : y + height, x : x + width] = originals[n]
        sheet[y + height : y + 2 * height, x : x + width] = outputs[n]
    return sheet.repeat(scale, 0).repeat(scale, 1)


def save_sheet(path: Path, originals: np.ndarray, outputs: np.ndarray, columns: int = 12) -> None:
    """Write a contact sheet as PNG."""
    Image.fromarray(contact_sheet(originals, outputs, columns)).save(path, optimize=True)
