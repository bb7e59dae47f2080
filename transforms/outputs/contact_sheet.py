"""The contact sheet: one PNG of a sample of the images of an output folder with their captions, for a first look."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from transforms import storage
from transforms.batch import CAPTION, CLIP_SCORE, KEY, PROMPT, RANK, first_caption
from transforms.errors import amount
from transforms.image_options import ImageLimits
from transforms.images import decode_image
from transforms.ledger.folder import CONTACT_SHEET
from transforms.ledger.types import shard_number
from transforms.outputs.image_files import row_of
from transforms.outputs.layout import Layout, Row, StoredImage
from transforms.outputs.sampling import sample_images
from transforms.outputs.sheet import Panel, Picture, draw_sheet, fitted

SHOWN = 48  # images
ORIGINAL = "original"

# What rows of the input, each given by its shard and its number there, were: an image, or None where that is not known.
Originals = Callable[[Sequence[tuple[int, int]]], Sequence[Image.Image | None]]
Open = Callable[[bytes], Image.Image]


@dataclass(frozen=True)
class Kept:
    """Image files that a command writes as they came, and how one is opened."""

    layout: Layout
    open_image: Open


def write_contact_sheet(
    output: str,
    layout: Layout,
    images: int,
    *,
    open_image: Open | None = None,
    originals: Originals | None = None,
    by_score: bool = False,
) -> None:
    """Put `contact_sheet.png` into an output folder that holds so many images, unless it holds none.

    `open_image` decodes files that others made. With `originals`, each panel has what its images were made from.
    `by_score`: the best come first.
    """
    panels: list[Panel] = []
    rows: list[tuple[int, int]] = []
    scores: list[float] = []
    for uri, found in sample_images(output, layout, (CLIP_SCORE, RANK), images, SHOWN):
        files = [image.read() for image in found]
        pictures = [
            Picture(fitted((open_image or _open)(data)), note(image.row))
            for image, (_, data) in zip(found, files, strict=True)
        ]
        panels.append(_panel(found, pictures))
        rows.append((shard_number(uri.rpartition("/")[2].partition(".")[0]), row_of(files[0][0])))
        scores.append(_number(found[0].row.get(CLIP_SCORE), -math.inf))
    if not panels:
        return
    if originals:
        panels = [
            replace(panel, original=Picture(original, ORIGINAL)) if original else panel
            for panel, original in zip(panels, originals(rows), strict=True)
        ]
    if by_score:
        panels = [panels[i] for i in sorted(range(len(panels)), key=lambda i: (-scores[i], i))]
    sheet = draw_sheet(panels, title(sum(len(panel.pictures) for panel in panels), images, by_score))
    data = io.BytesIO()
    sheet.save(data, "PNG")
    storage.put_bytes(data.getvalue(), storage.join(output, CONTACT_SHEET))


def _panel(found: Sequence[StoredImage], pictures: Sequence[Picture]) -> Panel:
    row = found[0].row
    caption = first_caption(row[PROMPT] if PROMPT in row else row.get(CAPTION))
    return Panel(pictures, caption, row[KEY])


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Opens an image file of any kind that vqbeam reads, as a model is shown it. Raises `RowRejected`."""
    return Image.fromarray(decode_image(data, limits).pixels)


def title(shown: int, images: int, by_score: bool = False) -> str:
    """What is shown of how many."""
    said = f"{shown:,} of {amount(images, 'images')}"
    return f"{said}, best first" if by_score else said


def note(row: Row) -> str:
    """Rank and score of an image, as far as it has them."""
    rank, score = row.get(RANK), row.get(CLIP_SCORE)
    ranked = f"#{rank}" if isinstance(rank, int) else ""
    scored = f"CLIP {score:.3f}" if isinstance(score, float) and math.isfinite(score) else ""
    return " ".join(filter(None, (ranked, scored)))


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else otherwise
