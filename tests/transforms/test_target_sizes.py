"""The sizes of images that differ by row."""

from __future__ import annotations

import io
import json
from math import isqrt, sqrt

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, scene
from tests.support.paths import GOLDEN
from transforms.errors import RowRejected, UsageError
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.target_sizes import TargetSizes, nearest_bucket, sides_of_area

BUCKETS = ((32, 32), (40, 24), (24, 40))


def made(
    image: Image.Image, resize: str, sizes: TargetSizes, image_format: str = "PNG", **options: object
) -> np.ndarray:
    return decode_image(encoded(image, image_format, **options), ImageOptions(32, resize=resize, by_row=sizes)).pixels


@pytest.mark.parametrize(
    ("sides", "bucket"),
    [((100, 100), (32, 32)), ((200, 100), (40, 24)), ((50, 100), (24, 40)), ((1, 900), (24, 40)), ((9, 7), (32, 32))],
)
def test_the_bucket_of_the_nearest_ratio_is_taken(sides: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert nearest_bucket(sides, BUCKETS) == nearest_bucket(sides, BUCKETS[::-1]) == bucket
    width, height = bucket
    assert made(scene(*sides), "bucket", TargetSizes(8, BUCKETS)).shape == (height, width, 3)


def test_sizes_are_those_of_lumina_and_emu() -> None:
    stored = json.loads((GOLDEN / "aspect_sizes.json").read_text())
    buckets = tuple(map(tuple, stored["lumina_crop_sizes"]))
    side = isqrt(stored["emu35_area"])
    assert side * side == stored["emu35_area"]
    for row in stored["rows"]:
        original = tuple(row["original"])
        assert nearest_bucket(original, buckets) == tuple(row["lumina"])
        assert sides_of_area(original, side, 16) == tuple(row["emu35"])


def test_of_two_that_are_as_near_the_larger_pair_is_taken() -> None:
    assert nearest_bucket((10, 10), ((64, 32), (32, 64))) == (64, 32)
    assert nearest_bucket((10, 10), ((32, 32), (64, 64))) == (64, 64)


def test_an_image_is_resampled_once_and_cut_in_the_middle() -> None:
    image = scene(90, 60)
    sizes = TargetSizes(8, BUCKETS)
    wide = made(image, "bucket", sizes)  # 90 x 54 of it
    expected = image.resize((40, 24), Image.Resampling.LANCZOS, box=(0, 3, 90, 57))
    np.testing.assert_array_equal(wide, expected)
    square = made(scene(60, 60), "bucket", sizes)
    np.testing.assert_array_equal(square, decode_image(encoded(scene(60, 60), "PNG"), ImageOptions(32)).pixels)


@pytest.mark.parametrize("resize", ["bucket", "area", "none"])
@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_a_turned_image_has_the_size_of_what_is_displayed(resize: str, tag: int) -> None:
    upright = scene(80, 48)
    turn = {1: 0, 3: 180, 6: 90, 8: 270}[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    sizes = TargetSizes(8, BUCKETS if resize == "bucket" else (), 32 if resize == "area" else 0)
    turned = made(upright.rotate(turn, expand=True), resize, sizes, exif=exif)
    plain = made(upright, resize, sizes)
    assert plain.shape == {"bucket": (24, 40, 3), "area": (24, 40, 3), "none": (48, 80, 3)}[resize]
    np.testing.assert_allclose(turned.astype(int), plain, atol=3)


@pytest.mark.parametrize("sides", [(512, 512), (1024, 512), (300, 500), (4000, 3000), (17, 33), (2600, 100)])
def test_area_keeps_the_ratio_at_about_the_same_area(sides: tuple[int, int]) -> None:
    width, height = sides_of_area(sides, 512, 16)
    assert (width % 16, height % 16) == (0, 0)
    assert abs(width - 512 * sqrt(sides[0] / sides[1])) <= 16 * sides[0] / sides[1]
    assert abs(height - 512 * sqrt(sides[1] / sides[0])) <= 8.5
    assert width * height <= TargetSizes(16, area=512).most_pixels


@pytest.mark.parametrize(
    ("sides", "expected"), [((640, 480), (592, 448)), ((480, 640), (448, 592)), ((512, 512), (512, 512))]
)
def test_area_is_the_arithmetic_of_emu(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    """height = int(sqrt(512 * 512 / ratio)), width = int(height * ratio), to the nearest 16: 443, 590."""
    assert sides_of_area(sides, 512, 16) == expected
    image = scene(*sides)
    np.testing.assert_array_equal(
        made(image, "area", TargetSizes(16, area=512)), image.resize(expected, Image.Resampling.BICUBIC)
    )


def test_images_that_give_no_grid_are_rejected() -> None:
    with pytest.raises(RowRejected, match="wrong_size: 20000 x 2 pixels, too narrow: with the area of 64 x 64 a side"):
        TargetSizes(16, area=64).of((20000, 2))
    assert TargetSizes(8).of((64, 24)) == (64, 24)
    with pytest.raises(RowRejected, match="wrong_size: 64 x 20 pixels; any size takes sides that are multiples of 8"):
        TargetSizes(8).of((64, 20))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match=r"buckets: 40x20 is no size of this model, .* sides must be multiples of 8"):
        TargetSizes(8, ((32, 32), (40, 20)))
    with pytest.raises(UsageError, match="resize: area:4 is less than a code, 8 x 8 pixels"):
        TargetSizes(8, area=4)
    side = r"resize: area:4096 is a side, of images of about 4,096 x 4,096 pixels; it is at most 2,048$"
    with pytest.raises(UsageError, match=side):
        TargetSizes(8, area=4096)
    with pytest.raises(UsageError, match=r"at most 2,048; for 518,400 pixels give area:720$"):
        TargetSizes(8, area=720 * 720)
    assert TargetSizes(8, area=2048).area == 2048
    with pytest.raises(UsageError, match="resize: bucket gives grids that differ by row, which only encode writes"):
        ImageOptions(32, resize="bucket")


def test_jpegs_are_decoded_smaller_if_twice_the_size_remains() -> None:
    photo = scene(640, 400)
    sizes = TargetSizes(8, BUCKETS)
    data = encoded(photo, "JPEG", quality=95)
    scaled = decode_image(data, ImageOptions(32, resize="bucket", by_row=sizes))
    full = decode_image(data, ImageOptions(32, resize="bucket", by_row=sizes, jpeg_scale=False))
    assert scaled.pixels.shape == full.pixels.shape == (24, 40, 3)
    assert (scaled.original_width, scaled.original_height) == (640, 400)
    assert (scaled.pixels != full.pixels).any()
    np.testing.assert_allclose(scaled.pixels.astype(int), full.pixels, atol=12)
    assert Image.open(io.BytesIO(data)).size == (640, 400)
