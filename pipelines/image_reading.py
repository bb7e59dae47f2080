"""The choices that say how images are read, as fingerprints have them: those that a command left open are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from transforms.image_options import ImageLimits, ImageOptions
from transforms.ledger.plan import Plan

ICC, STRICT = "preprocessing.icc", "rows.strict_images"
OPEN: Mapping[str, Any] = {ICC: "srgb", STRICT: False}  # what new plans take
Options = TypeVar("Options", bound=ImageLimits)


def icc_choice(given: Mapping[str, Any], options: ImageLimits | None = None) -> dict[str, str | None]:
    """For "preprocessing", from the fields of `ImageLimits` that were given, and the options that they became."""
    by_rule = isinstance(options, ImageOptions) and options.rule is not None
    return {"icc": {True: "srgb", False: "off", None: "off" if by_rule else None}[given.get("icc")]}


def rows_choice(options: ImageLimits, given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """For "rows": which images are read. Limits of `names`, by default all; 0 stands for none."""
    limits = names or [field.name for field in fields(ImageLimits) if field.name not in ("icc", "strict_images")]
    return {name: getattr(options, name) or 0 for name in limits} | {"strict_images": given.get("strict_images")}


def as_planned(options: Options, plan: Plan, icc: str = ICC) -> Options:
    """The options with the choices of the stored plan; `icc` is the path of that of colour profiles."""
    return replace(options, icc=plan.choice(icc) == "srgb", strict_images=plan.choice(STRICT))
