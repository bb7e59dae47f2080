"""Bad, hostile and unwanted images are rejected or filtered by the documented code, and nothing else escapes."""

from __future__ import annotations

import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, png_by_hand, scene
from transforms.errors import RowFiltered, RowRejected
from transforms.image_options import ImageOptions
from transforms.images import decode_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's, about corrupt EXIF
OPTIONS = ImageOptions(size=16, max_image_pixels=1_000_000)

GOOD = {
    "jpeg": encoded(scene(), "JPEG"),
    "jpeg progressive": encoded(scene(), "JPEG", progressive=True),
    "jpeg cmyk": encoded(scene().convert("CMYK"), "JPEG"),
    "png": encoded(scene(), "PNG"),
    "png palette": encoded(scene().quantize(16), "PNG", transparency=3),
    "png 16": encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"),
    "webp": encoded(scene(), "WEBP"),
    "webp animated": encoded(scene(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64))]),
    "gif": encoded(scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 64))]),
    "bmp": encoded(scene(), "BMP"),
    "bmp palette": encoded(scene().quantize(16), "BMP"),
    "tiff": encoded(scene(), "TIFF"),
    "tiff lzw": encoded(scene(), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encoded(scene(), "TIFF", compression="jpeg"),
    "tiff float": encoded(scene().convert("F"), "TIFF"),
}


def rejection(data: bytes, options: ImageOptions = OPTIONS) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        decode_image(data, options)
    return caught.value


def outcome(data: bytes) -> tuple[int, ...] | str:
    """The shape of the image, or the code of the rejection."""
    try:
        return decode_image(data, OPTIONS).pixels.shape
    except RowRejected as refused:
        return refused.code


def filtering(data: bytes, options: ImageOptions) -> str:
    with pytest.raises(RowFiltered) as caught:
        decode_image(data, options)
    return caught.value.reason


def test_zero_bytes_are_an_empty_image():
    assert rejection(b"").code == "empty_image"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'{"error": "rate limited"}',
        b"\0" * 500,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encoded(scene(), "PPM"),
        encoded(scene(), "ICO"),
        encoded(scene(), "PDF"),
        encoded(scene(), "JPEG2000"),
    ],
    ids=["html", "json", "zeros", "svg", "ppm", "ico", "pdf", "jpeg 2000"],
)
def test_what_is_none_of_the_six_formats_is_not_an_image(data):
    refused = rejection(data)
    assert refused.code == "not_an_image"
    assert repr(data[:8])[2:-1] in refused.message


def test_too_many_bytes_are_refused_unread():
    refused = rejection(GOOD["bmp"], ImageOptions(size=16, max_image_bytes=1000))
    assert refused.code == "image_too_large"
    assert f"{len(GOOD['bmp']):,}" in refused.message


@pytest.mark.parametrize("name", GOOD)
def test_too_many_pixels_are_refused(name):
    assert rejection(GOOD[name], ImageOptions(size=16, max_image_pixels=64 * 64 - 1)).code == "too_many_pixels"


@pytest.mark.parametrize(
    "bomb",
    [
        png_by_hand(50_000, 50_000, 8, 2, b"\0" * 1000),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + GOOD["gif"][10:],
        GOOD["bmp"][:18] + struct.pack("<ii", 40_000, 40_000) + GOOD["bmp"][26:],
    ],
    ids=["png", "gif", "bmp"],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(bomb):
    start = time.process_time()
    assert rejection(bomb).code == "too_many_pixels"
    assert time.process_time() - start < 0.5


def test_a_gif_whose_frame_is_larger_than_its_screen_is_refused():
    data = bytearray(encoded(scene().quantize(16), "GIF"))
    frame = data.index(b",", 13 + 3 * 16)
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert rejection(bytes(data)).code == "too_many_pixels"


@pytest.mark.parametrize("name", GOOD)
def test_a_file_cut_short_is_broken_wherever_it_was_cut(name):
    data = GOOD[name]
    end = 0.5 if name in ("gif", "webp animated") else 0.8  # later frames are not missed
    for cut in np.linspace(16, len(data) * end, 25).astype(int):
        assert outcome(data[:cut]) == "broken_image", f"cut to {cut} of {len(data)} bytes"


@pytest.mark.parametrize("name", GOOD)
def test_one_byte_is_not_an_image(name):
    assert rejection(GOOD[name][:1]).code == "not_an_image"


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_text_bombs_in_a_png_take_little_time(name):
    bomb = (name, b"comment\0\0" + zlib.compress(b"\0" * 20_000_000))
    start = time.process_time()
    found = decode_image(png_by_hand(1, 1, 8, 0, b"\0\0", (bomb,) * 200), OPTIONS)
    assert time.process_time() - start < 2
    assert found.notices


@pytest.mark.parametrize("name", GOOD)
def test_corrupted_bytes_give_a_rejection_or_an_image(name):
    chance = random.Random(name)
    for _ in range(250):
        data = bytearray(GOOD[name])
        kind = chance.random()
        if kind < 0.25:
            del data[chance.randrange(len(data)) :]
        elif kind < 0.9:
            reach = len(data) if chance.random() < 0.5 else min(len(data), 200)  # headers are where the readers are
            for _ in range(chance.choice([1, 1, 2, 4, 16])):
                data[chance.randrange(reach)] = chance.choice([0, 1, 128, 255, chance.randrange(256)])
        else:
            position = chance.randrange(len(data))
            data[position:position] = chance.randbytes(chance.randrange(1, 9))
        assert outcome(bytes(data)) in ((16, 16, 3), "broken_image", "not_an_image", "too_many_pixels", "empty_image")


def test_messages_repeat_exactly():
    """Error files are named by a hash of their content, so no address in memory may get into them."""
    for data in GOOD.values():
        half = data[: len(data) // 2]
        assert rejection(half).message == rejection(bytes(bytearray(half))).message


def test_the_wrong_size_is_refused_where_nothing_is_resized():
    refused = rejection(encoded(scene(32, 16), "PNG"), ImageOptions(size=16, resize="none"))
    assert refused.code == "wrong_size"
    assert "32 x 16" in refused.message


def test_images_with_a_short_side_below_the_minimum_are_filtered():
    assert filtering(encoded(scene(200, 63), "PNG"), ImageOptions(size=16, min_image_size=64)) == "min_image_size"
    assert decode_image(GOOD["png"], ImageOptions(size=16, min_image_size=64)).original_width == 64


@pytest.mark.parametrize("size", [(121, 40), (40, 121)])
def test_images_too_long_for_their_width_are_filtered(size):
    data = encoded(scene(*size), "PNG")
    assert filtering(data, ImageOptions(size=16, max_aspect_ratio=3.0)) == "max_aspect_ratio"
    assert decode_image(data, ImageOptions(size=16, max_aspect_ratio=3.1)).original_width == size[0]
