"""Images become files of the asked format, under names that are safe for any key."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.support.images import psnr, scene
from transforms.errors import UsageError
from transforms.outputs.image_files import encode_image, image_name

PIXELS = np.asarray(scene(64, 48))


def test_png_keeps_every_pixel():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_image(PIXELS, "png")))), PIXELS)


@pytest.mark.parametrize(("image_format", "decibels"), [("webp", 32), ("jpeg", 40)])
def test_lossy_formats_stay_close(image_format, decibels):
    image = Image.open(io.BytesIO(encode_image(PIXELS, image_format)))
    assert image.format == image_format.upper()
    assert psnr(np.asarray(image), PIXELS) > decibels


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_equal_pixels_give_equal_bytes_in_any_memory_layout(image_format):
    strided = np.zeros((48, 128, 3), np.uint8)[:, ::2]
    strided[:] = PIXELS
    assert encode_image(strided, image_format) == encode_image(PIXELS, image_format)


def test_png_carries_text_of_any_language():
    text = {"key": "a/b", "caption": "ein roter Apfel 🍎 りんご", "odd": "\ud800"}
    image = Image.open(io.BytesIO(encode_image(PIXELS, "png", text)))
    assert image.text == {**text, "odd": "?"}


def test_other_formats_are_refused():
    with pytest.raises(UsageError, match=r"'bmp'.*png, webp, jpeg"):
        encode_image(PIXELS, "bmp")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("red apple", "0000017-red-apple_0.png"),
        ("Photos/IMG_0001.JPG", "0000017-photos-img_0001-jpg_0.png"),
        ("../../etc/passwd", "0000017-etc-passwd_0.png"),
        ("/absolute", "0000017-absolute_0.png"),
        ("C:\\con.txt\0", "0000017-c-con-txt_0.png"),
        ("Crème brûlée", "0000017-creme-brulee_0.png"),
        ("りんご", "0000017_0.png"),
        ("", "0000017_0.png"),
        ("...", "0000017_0.png"),
        ("\ud800", "0000017_0.png"),
        ("x" * 5000, f"0000017-{'x' * 60}_0.png"),
    ],
)
def test_names_are_plain_and_readable(key, name):
    assert image_name(17, key, 0, "png") == name


def test_names_of_a_shard_are_distinct_even_for_equal_keys():
    names = {image_name(row, key, sample, "png") for row in range(12) for key in ("a", "a_1") for sample in range(12)}
    assert len(names) == 12 * 2 * 12


def test_names_sort_in_row_order_and_hold_one_dot():
    names = [image_name(row, "k", 0, "jpeg") for row in (2, 10, 999_999)]
    assert names == sorted(names)
    assert all(re.fullmatch(r"[a-z0-9_-]+\.jpg", name) for name in names)
