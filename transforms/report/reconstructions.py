"""The images that codes stand for, beside the pixels that they were made of, as the model saw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.errors import ModelError
from models.image_tokenizer import AnyGridTokenizer, ImageTokenizer
from transforms.batch import ENCODING, GRID_H, GRID_W, VIEW
from transforms.errors import RowFiltered, RowRejected, ShardFailed, UsageError
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.ledger.plan import Plan
from transforms.outputs.measures import psnr
from transforms.report.drawn import Budget
from transforms.report.originals import Original
from transforms.target_sizes import TargetSizes
from transforms.views import Views, decode_views

Open = Callable[[Mapping[str, Any]], ImageTokenizer]  # the tokenizer that a provenance names


@dataclass(frozen=True)
class Coded:
    """A tokenizer whose codes a folder holds: the ending of its columns, what the tables say of it, and the ending of
    its preprocessing in the plan."""

    suffix: str
    made: Mapping[str, Any]
    number: str = ""

    @property
    def name(self) -> str:
        return str(self.made.get("model", "the model"))


@dataclass
class Reconstructions:
    """`images` has an image uint8 [H, W, 3] for each row, None where there is none for the reason in `problem`."""

    images: list[np.ndarray | None] = field(default_factory=list)
    problem: str = ""


def reconstruct(rows: Sequence[Mapping[str, Any]], coded: Coded, opened: Open, budget: Budget) -> Reconstructions:
    """Decode the codes of some rows. A model that cannot be had, or an exhausted budget, is told in `problem`."""
    made = Reconstructions([None] * len(rows))
    try:
        tokenizer = opened(coded.made)
        for i, row in enumerate(rows):
            if budget.is_spent:
                made.problem = f"the time for reconstructions was used up after {i:,} of {len(rows):,}"
                break
            made.images[i] = _decoded(tokenizer, row, coded.suffix)
    except (ModelError, ShardFailed, UsageError, OSError, KeyError) as error:
        made.problem = f"no reconstructions: {error}"
    return made


def _decoded(tokenizer: ImageTokenizer, row: Mapping[str, Any], suffix: str) -> np.ndarray:
    codes = np.asarray([row[ENCODING + suffix]], np.int32)
    if row.get(GRID_H) and row.get(GRID_W) and isinstance(tokenizer, AnyGridTokenizer):
        return tokenizer.decode_grid(codes, (row[GRID_H], row[GRID_W]))[0]
    return tokenizer.decode(codes)[0]


def as_seen(original: Original, key: str, row: Mapping[str, Any], coded: Coded) -> np.ndarray | None:
    """The pixels uint8 [H, W, 3] that the codes of a row were made of; None if the plan does not say how."""
    options = _options(original.plan, coded)
    if options is None:
        return None
    try:
        said = original.plan.choice("views")
        if said != "off":
            views = Views(said["kind"], said["count"], tuple(said.get("crop_scale", ())), said.get("seed", 0))
            return decode_views(original.data, key, options=options, views=views).pixels[row.get(VIEW) or 0]
        return decode_image(original.data, options).pixels
    except (RowRejected, RowFiltered):  # read by other rules since
        return None


def _options(plan: Plan, coded: Coded) -> ImageOptions | None:
    said = plan.fingerprint.get(f"preprocessing{coded.number}", {})
    if "resize" not in said:
        return None
    grids = plan.choice("grids")
    sizes = None
    if grids != "one":
        factor = int(coded.made["resolution"]) // int(coded.made["grid"])
        sizes = TargetSizes(factor, tuple(map(tuple, grids.get("buckets", ()))), grids.get("area", 0))
    return ImageOptions(
        size=said["size"],
        resize=said["resize"],
        jpeg_scale=said["jpeg_scale"] != "off",
        by_row=sizes,
        icc=plan.choice(f"preprocessing{coded.number}.icc") == "srgb" if not coded.number else said["icc"] == "srgb",
        strict_images=plan.choice("rows.strict_images"),
    )


def likeness(seen: np.ndarray | None, made: np.ndarray | None) -> float | None:
    """PSNR in dB, infinite for equal images; None if there are not two images of one size."""
    if seen is None or made is None or seen.shape != made.shape:
        return None
    found = psnr(seen, made)
    return float("inf") if found is None else found
