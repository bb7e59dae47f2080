"""Good images of every format and mode come out as the RGB square they should be."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support.images import encoded, png_by_hand, psnr, scene
from transforms.errors import UsageError
from transforms.image_formats import sniff_format
from transforms.image_options import FILTER, ImageOptions, preprocessing_id
from transforms.images import box_to_fit, decode_image

AS_IT_IS = ImageOptions(size=64, resize="none")
SCENE = np.asarray(scene())
GREY = np.asarray(scene().convert("L"))
RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def pixels(data: bytes, options: ImageOptions = AS_IT_IS) -> np.ndarray:
    return decode_image(data, options).pixels


def grey_rgb(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_a_lossless_file_gives_its_exact_pixels(image_format, options):
    assert np.array_equal(pixels(encoded(scene(), image_format, **options)), SCENE)


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("GIF", {}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
    ],
)
def test_a_lossy_file_gives_nearly_its_pixels(image_format, options):
    assert psnr(pixels(encoded(scene(), image_format, **options)), SCENE) > 28


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "JPEG", "WEBP", "GIF"])
def test_grey_images_become_rgb(image_format):
    assert psnr(pixels(encoded(scene().convert("L"), image_format)), grey_rgb(GREY)) > 30


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit_images_become_black_and_white(image_format):
    bits = scene().convert("1")
    assert np.array_equal(pixels(encoded(bits, image_format)), grey_rgb(np.asarray(bits.convert("L"))))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_are_looked_up(image_format):
    few_colours = scene().quantize(16)
    assert np.array_equal(pixels(encoded(few_colours, image_format)), np.asarray(few_colours.convert("RGB")))


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_and_is_not_inverted(image_format):
    assert psnr(pixels(encoded(scene().convert("CMYK"), image_format)), SCENE) > 28


def test_an_adobe_cmyk_jpeg_holds_inverted_inks_and_is_read_so():
    paper_white = encoded(Image.new("CMYK", (64, 64), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in paper_white
    assert pixels(paper_white).min() == 255


def test_ycbcr_tiff_becomes_rgb():
    assert psnr(pixels(encoded(scene().convert("YCbCr"), "TIFF", compression="tiff_lzw")), SCENE) > 35


def test_lab_tiff_becomes_rgb():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    in_lab = ImageCms.buildTransform(srgb, lab, "RGB", "LAB").apply(scene())
    assert psnr(pixels(encoded(in_lab, "TIFF")), SCENE) > 30


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(image_format):
    levels = (RAMP * 65535).astype(np.uint16)
    assert np.array_equal(
        pixels(encoded(Image.fromarray(levels), image_format)), grey_rgb((levels >> 8).astype(np.uint8))
    )


def test_16_bit_big_endian_tiff_is_read_in_its_byte_order():
    levels = (RAMP * 65535).astype(">u2")
    big_endian = Image.frombytes("I;16B", (64, 64), levels.tobytes())
    assert np.array_equal(pixels(encoded(big_endian, "TIFF")), grey_rgb((levels >> 8).astype(np.uint8)))


def test_16_bit_colour_png_keeps_its_high_byte():
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in SCENE)
    assert np.array_equal(pixels(png_by_hand(64, 64, 16, 2, rows)), SCENE)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((RAMP * 65535).astype(np.int32), RAMP),
        ((RAMP * 2e9).astype(np.int32), RAMP),
        ((RAMP * 2e6 - 1e6).astype(np.int32), RAMP),
        (RAMP.astype(np.float32), RAMP),
        ((RAMP * 255).astype(np.float32), RAMP),
        ((RAMP * 65535).astype(np.float32), RAMP),
        ((RAMP * 9 - 4).astype(np.float32), RAMP),
        (np.full((64, 64), -5, np.float32), RAMP * 0),
    ],
    ids=["int 16", "int 31", "int signed", "float 1", "float 255", "float 65535", "float signed", "float flat"],
)
def test_wide_grey_is_scaled_to_8_bits(levels, expected):
    got = pixels(encoded(Image.fromarray(levels), "TIFF"))
    assert np.abs(got[..., 0].astype(int) - expected * 255).max() <= 1


def test_float_images_with_infinities_and_nan_are_read():
    levels = RAMP.astype(np.float32)
    levels[0, :3] = (np.nan, np.inf, -np.inf)
    got = pixels(encoded(Image.fromarray(levels), "TIFF"))
    assert got[0, :3].max() == 0
    assert got[-1, -1].min() == 255


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_lets_white_through(image_format):
    half = scene()
    half.putalpha(Image.fromarray((RAMP * 255).astype(np.uint8)))
    alpha = (np.asarray(half)[..., 3:] / 255).astype(float)
    expected = (SCENE * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    assert (
        psnr(pixels(encoded(half, image_format, **({"lossless": True} if image_format == "WEBP" else {}))), expected)
        > 45
    )


def test_grey_with_alpha_lets_white_through():
    clear = Image.merge("LA", (scene().convert("L"), Image.new("L", (64, 64), 0)))
    assert pixels(encoded(clear, "PNG")).min() == 255


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_lets_white_through(image_format):
    few_colours = scene().quantize(16)
    clear = few_colours.getpixel((20, 20))
    got = pixels(encoded(few_colours, image_format, transparency=clear))
    seen_through = np.asarray(few_colours) == clear
    assert (got[seen_through] == 255).all()
    assert np.array_equal(got[~seen_through], np.asarray(few_colours.convert("RGB"))[~seen_through])


def test_palette_entries_may_be_half_transparent():
    black = Image.new("P", (64, 64), 0)
    black.putpalette([0, 0, 0])
    assert set(pixels(encoded(black, "PNG", transparency=b"\x80")).ravel()) == {127}


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_grey_level_lets_white_through(depth):
    levels = np.array([[10, 200]], dtype=">u2" if depth == 16 else np.uint8)
    data = png_by_hand(2, 1, depth, 0, b"\0" + levels.tobytes(), ((b"tRNS", struct.pack(">H", 10)),))
    got = pixels(data, ImageOptions(size=2, resize="squash"))
    assert got[:, 0].min() == 255
    assert got[:, 1].max() <= 200


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_image_of_many_is_taken(image_format):
    frames = encoded(scene(), image_format, save_all=True, append_images=[Image.new("RGB", (64, 64), "black")] * 2)
    assert psnr(pixels(frames), SCENE) > 25


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format, orientation):
    wide = scene(144, 96)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF value -> the Pillow transpose that stores it so
    stored = wide.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else wide
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = decode_image(encoded(stored, image_format, exif=exif), ImageOptions(size=64))
    assert (got.original_width, got.original_height) == (144, 96)
    assert psnr(got.pixels, pixels(encoded(wide, "PNG"), ImageOptions(size=64))) > 28


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_corrupt_exif_block_leaves_the_image_as_it_lies():
    assert psnr(pixels(encoded(scene(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")), SCENE) > 30


def test_center_crop_is_the_middle_square():
    wide = scene(150, 90)
    got = decode_image(encoded(wide, "PNG"), ImageOptions(size=64))
    expected = ImageOps.fit(wide, (64, 64), FILTER)
    assert (got.original_width, got.original_height) == (150, 90)
    assert np.array_equal(got.pixels, np.asarray(expected))


def test_pad_keeps_the_whole_image_between_white_bars():
    wide = scene(128, 64)
    got = pixels(encoded(wide, "PNG"), ImageOptions(size=64, resize="pad"))
    assert (got[:16] == 255).all()
    assert (got[48:] == 255).all()
    assert np.array_equal(got[16:48], np.asarray(wide.resize((64, 32), FILTER)))


def test_pad_keeps_at_least_one_row_of_a_thread():
    got = pixels(encoded(Image.new("L", (1000, 1), 0), "PNG"), ImageOptions(size=64, resize="pad"))
    assert (got != 255).any(axis=(1, 2)).sum() == 1


def test_squash_ignores_the_aspect_ratio():
    wide = scene(150, 90)
    got = pixels(encoded(wide, "PNG"), ImageOptions(size=64, resize="squash"))
    assert np.array_equal(got, np.asarray(wide.resize((64, 64), FILTER)))


@pytest.mark.parametrize("resize", ["center_crop", "pad", "squash"])
def test_small_images_are_enlarged(resize):
    assert pixels(encoded(scene(9, 7), "PNG"), ImageOptions(size=64, resize=resize)).shape == (64, 64, 3)


@pytest.mark.parametrize("resize", ["center_crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(512, 512), (901, 605), (1283, 517)])
def test_reduced_and_full_jpeg_decoding_differ_little(resize, size):
    data = encoded(scene(*size), "JPEG", quality=92)
    reduced = pixels(data, ImageOptions(size=96, resize=resize))
    full = pixels(data, ImageOptions(size=96, resize=resize, jpeg_scale=False))
    assert 36 < psnr(reduced, full) < 99


@pytest.mark.parametrize(
    ("size", "resize", "divisor"),
    [
        ((256, 256), "center_crop", 2),
        ((255, 400), "center_crop", 1),
        ((1024, 600), "center_crop", 4),
        ((4000, 3000), "center_crop", 8),
        ((512, 40), "pad", 4),
        ((512, 40), "squash", 1),
    ],
)
def test_at_least_twice_the_target_remains_of_a_reduced_jpeg(size, resize, divisor):
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", size), "JPEG")))
    box = box_to_fit(image, ImageOptions(size=64, resize=resize))
    assert box == (0, 0, size[0] / divisor, size[1] / divisor)
    assert image.size == (-(-size[0] // divisor), -(-size[1] // divisor))


def test_jpeg_scale_off_decodes_in_full():
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", (4000, 3000)), "JPEG")))
    assert box_to_fit(image, ImageOptions(size=64, jpeg_scale=False)) == (0, 0, 4000, 3000)


def test_pixels_are_contiguous_uint8_of_the_asked_size():
    got = pixels(encoded(scene(200, 100), "JPEG"), ImageOptions(size=48))
    assert got.shape == (48, 48, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous


def test_an_image_beyond_pillows_own_bound_is_read_without_a_warning_when_the_limit_is_raised():
    huge = encoded(Image.new("1", (10_000, 9_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(huge, ImageOptions(size=8, max_image_pixels=100_000_000)).max() == 0


@pytest.mark.parametrize(
    ("image_format", "name"),
    [("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF")],
)
def test_formats_are_told_by_their_first_bytes(image_format, name):
    assert sniff_format(encoded(scene(), image_format)) == name


def test_provenance_tells_what_decides_the_pixels():
    one, other = preprocessing_id(ImageOptions(size=64)), preprocessing_id(ImageOptions(size=64, jpeg_scale=False))
    assert one != other
    assert one == preprocessing_id(ImageOptions(size=64, max_image_bytes=5))
    assert {"size", "resize", "filter", "jpeg_scale", "pillow"} <= one.keys()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 64, "resize": "stretch"},
        {"size": 64, "max_image_bytes": 0},
        {"size": 64, "min_image_size": 0},
        {"size": 64, "max_aspect_ratio": 0.5},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match=r"^(size|resize|max_image_bytes|min_image_size|max_aspect_ratio): "):
        ImageOptions(**options)
