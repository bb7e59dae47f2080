"""What families make of images equals their own code, from the files."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.families import CHAMELEON, DIFFUSERS, IBQ, LLAMAGEN, SHOWO, golden
from transforms.errors import RowRejected, UsageError
from transforms.image_options import image_options, preprocessing_id
from transforms.images import NOT_TURNED, decode_image, resized_image
from transforms.own_preprocessing import bilinear

SETS = {
    "llamagen": (LLAMAGEN, 32),
    "chameleon": (CHAMELEON, 48),
    "diffusers": (DIFFUSERS, 40),
    "showo": (SHOWO, 40),
    "ibq": (IBQ, 32),
}
FAMILIES = pytest.mark.parametrize("family", SETS)


def file_of(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def gradient(width: int = 90, height: int = 64) -> Image.Image:
    values = np.arange(width * height * 3).reshape(height, width, 3) * 7 % 256
    return Image.fromarray(values.astype(np.uint8))


@FAMILIES
def test_the_pixels_of_every_file_are_those_of_the_original(family: str) -> None:
    folder, size = SETS[family]
    options = image_options(size, family, {})
    expected = golden(folder, "png_pixels")
    order = json.loads((folder / "png_order.json").read_text())["png_order"]
    assert len(order) == len(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, pixels in zip(order, expected, strict=True):
            path = folder / "png" / f"{name}.png"
            np.testing.assert_array_equal(decode_image(path.read_bytes(), options).pixels, pixels, name)
            np.testing.assert_array_equal(resized_image(Image.open(path), options), pixels, name)


@FAMILIES
def test_our_own_crop_gives_other_pixels(family: str) -> None:
    folder, size = SETS[family]
    options = image_options(size, "center_crop", {})
    path = folder / "png" / "landscape.png"
    assert (decode_image(path.read_bytes(), options).pixels != golden(folder, "png_pixels")[0]).any()


@FAMILIES
def test_images_are_not_turned_and_that_is_counted(family: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = image_options(32, family, {})
    turned, plain = decode_image(file_of(gradient(), exif=exif), options), decode_image(file_of(gradient()), options)
    np.testing.assert_array_equal(turned.pixels, plain.pixels)
    assert (turned.original_width, turned.original_height) == (90, 64)
    assert (turned.notices, plain.notices) == ((NOT_TURNED,), ())


@FAMILIES
def test_profiles_are_ignored_unless_asked_for(family: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    with_profile = file_of(gradient(), icc_profile=profile)
    plain = decode_image(file_of(gradient()), image_options(32, family, {}))
    ignored = decode_image(with_profile, image_options(32, family, {}))
    np.testing.assert_array_equal(ignored.pixels, plain.pixels)
    assert decode_image(with_profile, image_options(32, family, {"icc": True})).notices or ignored.notices == ()


@FAMILIES
def test_jpegs_are_decoded_in_full(family: str) -> None:
    jpeg = file_of(gradient(512, 400), "JPEG")
    whole = decode_image(file_of(Image.open(io.BytesIO(jpeg)).convert("RGB")), image_options(32, family, {}))
    np.testing.assert_array_equal(decode_image(jpeg, image_options(32, family, {})).pixels, whole.pixels)
    with pytest.raises(UsageError, match="decodes JPEGs in full"):
        image_options(32, family, {"jpeg_scale": True})


@pytest.mark.parametrize("family", [name for name in SETS if name != "diffusers"])  # which makes no side longer
def test_a_narrow_strip_is_rejected_before_it_fills_the_memory(family: str) -> None:
    strip = file_of(Image.new("RGB", (40_000, 1)))
    with pytest.raises(RowRejected, match=r"40000 x 1 pixels become 10240000 x 256 before they are cut") as raised:
        decode_image(strip, image_options(256, family, {}))
    assert raised.value.code == "too_many_pixels"


@FAMILIES
def test_deep_grey_is_no_white(family: str) -> None:
    deep = Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16))
    assert decode_image(file_of(deep), image_options(32, family, {})).pixels.std() > 30


def test_a_transparent_colour_of_a_palette_shows_or_is_white() -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    data = file_of(image, transparency=bytes([0, 255]))
    assert decode_image(data, image_options(32, "llamagen", {})).pixels[0, 0].tolist() == [10, 20, 30]
    assert decode_image(data, image_options(32, "chameleon", {})).pixels[0, 0].tolist() == [255, 255, 255]


def test_half_transparent_pixels_are_cut_to_whole_levels() -> None:
    data = file_of(Image.new("RGBA", (64, 64), (10, 20, 30, 100)))
    expected = [int((1 - 100 / 255.0) * 255 + 100 / 255.0 * colour) for colour in (10, 20, 30)]
    assert decode_image(data, image_options(32, "chameleon", {})).pixels[0, 0].tolist() == expected


def test_auto_is_the_models_own() -> None:
    for given in ({}, {"resize": None}, {"resize": "auto"}):
        assert image_options(32, "llamagen", given).resize == "llamagen"
        assert image_options(32, "center_crop", given).resize == "center_crop"
    assert image_options(32, "llamagen", {"resize": "pad"}).resize == "pad"
    assert image_options(32, "center_crop", {"resize": "chameleon"}).resize == "chameleon"


def test_provenance_says_what_was_done() -> None:
    said = preprocessing_id(image_options(32, "llamagen", {}))
    assert {name: said[name] for name in ("resize", "filter", "background", "jpeg_scale")} == {
        "resize": "llamagen", "filter": "bicubic", "background": "alpha dropped", "jpeg_scale": "off",
    }  # fmt: skip


def test_bilinear_is_opencvs_at_half_the_size_too() -> None:
    """Where `cv2.resize` takes the mean of four pixels."""
    fours = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3) ** 2
    parts = [fours[row::2, column::2].astype(int) for row in (0, 1) for column in (0, 1)]
    np.testing.assert_array_equal(bilinear(Image.fromarray(fours), (4, 3)), (sum(parts) + 2) // 4)
    assert preprocessing_id(image_options(32, "ibq", {}))["filter"] == "bilinear of opencv"
