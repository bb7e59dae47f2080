"""Views of an image equal those of the originals, and each is where its crop says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.families import LLAMAGEN, golden
from tests.support.images import encoded, scene
from tests.support.paths import GOLDEN
from transforms.errors import RowRejected, UsageError
from transforms.image_options import ImageOptions, image_options
from transforms.images import DecodedImage, decode_image
from transforms.views import Crop, Views, _cut, decode_views, views_of

FOUR_M = GOLDEN / "views_4m_small"


def png(name: str, folder: Path = LLAMAGEN) -> bytes:
    return (folder / "png" / f"{name}.png").read_bytes()


def seen(data: bytes, options: ImageOptions, views: str, key: str = "k", **chosen: object) -> DecodedImage:
    return decode_views(data, key, options=options, views=views_of(views, options, **chosen))


@pytest.mark.parametrize(("scale", "name", "stored"), [(1.1, "landscape", "11"), (1.05, "portrait", "105")])
def test_ten_crops_are_those_of_llamagen(scale: float, name: str, stored: str) -> None:
    options = image_options(32, "llamagen", {})
    found = seen(png(name), options, "ten_crop", crop_scale=(scale,))
    np.testing.assert_array_equal(found.pixels, golden(LLAMAGEN, f"tencrop{stored}_pixels_{name}"))


@pytest.mark.parametrize("name", ["landscape", "portrait", "odd"])
def test_a_box_is_cut_and_resized_as_by_4m(name: str) -> None:
    order = json.loads((FOUR_M / "png_order.json").read_text())
    options = image_options(order["input_size"], "llamagen", {"resize": "llamagen"})  # for bicubic
    pixels = np.asarray(Image.open(io.BytesIO(png(name, FOUR_M))).convert("RGB"))
    for (top, left, height, width, mirrored), expected in zip(
        golden(FOUR_M, f"crop_settings_{name}"), golden(FOUR_M, f"pixels_{name}"), strict=True
    ):
        box = Crop(left, top, width, height, bool(mirrored))
        np.testing.assert_array_equal(_cut(pixels, box, options), expected)


@pytest.mark.parametrize("resize", ["center_crop", "pad", "squash", "llamagen", "chameleon", "showo", "ibq"])
def test_flip_is_the_image_of_encode_and_its_mirror_image(resize: str) -> None:
    options = image_options(32, resize, {"resize": resize})
    plain = decode_image(png("landscape"), options).pixels
    found = seen(png("landscape"), options, "flip")
    np.testing.assert_array_equal(found.pixels, [plain, plain[:, ::-1]])
    assert [crop.flipped for crop in found.crops] == [False, True]
    assert vars(found.crops[0]) == vars(found.crops[1]) | {"flipped": False}
    np.testing.assert_array_equal(seen(png("landscape"), options, "center").pixels, [plain])


@pytest.mark.parametrize("views", ["flip", "ten_crop", "random:6"])
@pytest.mark.parametrize("resize", ["center_crop", "pad", "llamagen", "showo", "none"])
def test_a_crop_says_what_a_view_shows(resize: str, views: str) -> None:
    """On an image whose colours are its positions, in any orientation of the file."""
    width, height = (32, 32) if (resize, views) == ("none", "flip") else (200, 120)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ramp = np.stack([x, y, np.full_like(x, 90)], axis=2).astype(np.uint8)
    exif = Image.Exif()
    turned = resize not in ("llamagen", "showo")  # which do not turn images
    if turned:
        exif[0x0112] = 6  # the file holds it turned by 90 degrees to the left
    data = encoded(Image.fromarray(np.rot90(ramp) if turned else ramp), "PNG", exif=exif)
    found = seen(data, image_options(32, resize, {"resize": resize}), views)
    assert (found.original_width, found.original_height) == (width, height)
    for pixels, crop in zip(found.pixels, found.crops, strict=True):
        at = (np.array([8, 16, 24]) + 0.5) / 32
        across = crop.left + (1 - at if crop.flipped else at) * crop.width - 0.5
        down = crop.top + at * crop.height - 0.5
        inside = [i for i, value in enumerate(down) if 2 <= value <= height - 3]
        rows, columns = pixels[8:25:8], pixels[:, 8:25:8]
        np.testing.assert_allclose(np.stack([rows[i, 16, 1] for i in inside]), down[inside], atol=4)
        np.testing.assert_allclose(columns[16, :, 0], across, atol=4)


def test_random_views_are_decided_by_seed_key_and_view_alone() -> None:
    data = encoded(scene(90, 60), "PNG")
    options = ImageOptions(32)
    six = seen(data, options, "random:6", crop_scale=(0.3,), seed=4)
    three = seen(data, options, "random:3", crop_scale=(0.3,), seed=4)
    assert three.crops == six.crops[:3]
    assert len(set(six.crops)) == 6
    assert {crop.flipped for crop in six.crops} == {True, False}
    for crop in six.crops:
        assert 0.28 < crop.width * crop.height / (90 * 60) <= 1
        assert 0.7 < crop.width / crop.height < 1.4
        assert min(crop.left, crop.top) >= 0
        assert (crop.left + crop.width <= 90, crop.top + crop.height <= 60) == (True, True)
    assert seen(data, options, "random:6", key="other", seed=4).crops != six.crops
    assert seen(data, options, "random:6", seed=5).crops != six.crops


@pytest.mark.parametrize("sides", [(400, 3), (3, 400), (1, 1)])
def test_strips_have_random_views_too(sides: tuple[int, int]) -> None:
    found = seen(encoded(scene(*sides), "PNG"), ImageOptions(16), "random:4", crop_scale=(0.9, 1.0))
    assert found.pixels.shape == (4, 16, 16, 3)
    for crop in found.crops:
        assert min(crop.width, crop.height) >= 1
        assert (crop.left + crop.width <= sides[0], crop.top + crop.height <= sides[1]) == (True, True)


@pytest.mark.parametrize("views", ["ten_crop", "random:2"])
def test_smaller_images_are_enlarged_but_not_with_resize_none(views: str) -> None:
    data = encoded(scene(30, 40), "PNG")
    assert seen(data, ImageOptions(32), views).pixels.shape[1:] == (32, 32, 3)
    as_it_is = ImageOptions(32, resize="none")
    with pytest.raises(RowRejected, match="wrong_size: 30 x 40 pixels, smaller than a view of 32 x 32, and"):
        seen(data, as_it_is, views)
    large = encoded(scene(50, 40), "PNG")
    whole = decode_image(large, ImageOptions(32, whole=True)).pixels
    for pixels, crop in zip(*(lambda one: (one.pixels, one.crops))(seen(large, as_it_is, views)), strict=True):
        part = whole[int(crop.top) : int(crop.top) + 32, int(crop.left) : int(crop.left) + 32]
        np.testing.assert_array_equal(pixels, part[:, ::-1] if crop.flipped else part)


@pytest.mark.parametrize(
    ("views", "resize", "chosen", "told"),
    [
        ("five_crop", "center_crop", {}, "views: 'five_crop' is unknown; expected center, flip, ten_crop or random:N"),
        ("random", "center_crop", {}, "'random' is unknown"),
        ("random:0", "center_crop", {}, "N from 1 to 256"),
        ("random:257", "center_crop", {}, "N from 1 to 256"),
        ("random:-1", "center_crop", {}, "N from 1 to 256"),
        ("flip:2", "center_crop", {}, "'flip:2' is unknown"),
        ("flip", "center_crop", {"crop_scale": (1.1,)}, "crop_scale: views flip have none; leave it out"),
        ("ten_crop", "none", {"crop_scale": (1.1,)}, "crop_scale: resize none cuts without it"),
        ("ten_crop", "center_crop", {"crop_scale": (0.9,)}, "crop_scale: views ten_crop take one number from 1 to 8"),
        ("ten_crop", "center_crop", {"crop_scale": (1.1, 2)}, "one number"),
        ("random:2", "center_crop", {"crop_scale": (0.5, 1.1)}, "LOW,HIGH with 0 < LOW <= HIGH <= 1, not 0.5,1.1"),
        ("ten_crop", "center_crop", {"seed": 1}, "seed: views ten_crop are not drawn; leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(views: str, resize: str, chosen: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        views_of(views, image_options(32, resize, {"resize": resize}), **chosen)


def test_the_defaults_are_those_of_the_originals() -> None:
    options = ImageOptions(32)
    assert views_of("ten_crop", options) == Views("ten_crop", 10, (1.1,))
    assert views_of("random:4", options).to_json() == {
        "kind": "random", "count": 4, "crop_scale": [0.2, 1.0], "seed": 0,
    }  # fmt: skip
    assert views_of("flip", options).to_json() == {"kind": "flip", "count": 2}
