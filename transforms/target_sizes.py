"""The size in pixels that an image is brought to, if that differs by row: codes are then grids of other shapes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, sqrt
from typing import Any

from transforms.errors import RowRejected, UsageError

Sides = tuple[int, int]  # width and height

MOST_BUCKETS = 256
MOST_SIDE = 2048  # of an area: four times that of the largest models
A_SIDE = 128  # of an area, at least, if a number of pixels is taken for it


@dataclass(frozen=True)
class TargetSizes:
    """With `buckets` the one of the nearest aspect ratio; with `area`, sides of about area x area pixels that keep the
    ratio; with neither, images keep their size. Sides are multiples of `factor`.

    Raises `UsageError` for buckets that are none, and for an area of less than a code or of too many.
    """

    factor: int
    buckets: tuple[Sides, ...] = ()
    area: int = 0

    def __post_init__(self) -> None:
        if len(self.buckets) > MOST_BUCKETS:
            raise UsageError(f"{len(self.buckets)} are too many; at most {MOST_BUCKETS}", "buckets")
        for width, height in self.buckets:
            if width % self.factor or height % self.factor or not (width and height):
                raise UsageError(
                    f"{width}x{height} is no size of this model, whose codes stand for {self.factor} x {self.factor} "
                    f"pixels: sides must be multiples of {self.factor}",
                    "buckets",
                )
        if self.area and self.area < self.factor:
            raise UsageError(f"area:{self.area} is less than a code, {self.factor} x {self.factor} pixels", "resize")
        if self.area > MOST_SIDE:
            side = isqrt(self.area)
            meant = f"; for {self.area:,} pixels give area:{side}" if side >= A_SIDE else ""
            raise UsageError(
                f"area:{self.area} is a side, of images of about {self.area:,} x {self.area:,} pixels; it is at most "
                f"{MOST_SIDE:,}{meant}",
                "resize",
            )

    @property
    def most_pixels(self) -> int | None:
        """Of an image; None if there is no limit."""
        if self.buckets:
            return max(width * height for width, height in self.buckets)
        return 2 * self.area * self.area or None

    def of(self, sides: Sides) -> Sides:
        """For an image of these sides. Raises `RowRejected` (wrong_size)."""
        if self.buckets:
            return nearest_bucket(sides, self.buckets)
        if self.area:
            return sides_of_area(sides, self.area, self.factor)
        if sides[0] % self.factor or sides[1] % self.factor:
            wanted = f"any size takes sides that are multiples of {self.factor}"
            raise RowRejected("wrong_size", f"{sides[0]} x {sides[1]} pixels; {wanted}")
        return sides

    def to_json(self) -> dict[str, Any]:
        """What decides the sizes, for the fingerprint and provenance."""
        if self.buckets:
            return {"kind": "bucket", "buckets": [list(bucket) for bucket in self.buckets]}
        return {"kind": "area", "area": self.area} if self.area else {"kind": "any"}


def nearest_bucket(sides: Sides, buckets: tuple[Sides, ...]) -> Sides:
    """The bucket whose aspect ratio is nearest, as a ratio of ratios; of two the larger pair, as in Lumina-mGPT."""

    def likeness(bucket: Sides) -> tuple[Fraction, Sides]:
        one, other = bucket[0] * sides[1], bucket[1] * sides[0]
        return Fraction(min(one, other), max(one, other)), bucket

    return max(buckets, key=likeness)


def sides_of_area(sides: Sides, area: int, factor: int) -> Sides:
    """The arithmetic of Emu3.5: each side to the nearest multiple of `factor`, halves up.

    Raises `RowRejected` (wrong_size) for a strip.
    """
    ratio = sides[0] / sides[1]
    height = int(sqrt(area * area / ratio))
    width, height = (int(side / factor + 0.5) * factor for side in (int(height * ratio), height))
    if not (width and height):
        told = f"{sides[0]} x {sides[1]} pixels, too narrow: with the area of {area} x {area} a side has no code"
        raise RowRejected("wrong_size", told)
    return width, height
