"""Images as people have them: colour profiles, large texts, damage beside the pixels, AVIF."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from benchmarks.support.icc_profiles import ADOBE_RGB, DISPLAY_P3, GREY_GAMMA, SRGB, ink_profile
from tests.support.run_command import encode, run
from transforms.errors import RowRejected
from transforms.image_formats import READERS
from transforms.image_options import ImageLimits, ImageOptions
from transforms.images import DecodedImage, decode_image
from transforms.inference.load import load

SIDE = 64


def scene(side: int = SIDE, shift: int = 40) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side]
    channels = [x * 255 // side, y * 255 // side, (x + y + shift) % 256]
    return Image.fromarray(np.stack(channels, -1).astype("uint8"))


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def whole(data: bytes, **limits: object) -> DecodedImage:
    return decode_image(data, ImageLimits(**limits))


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return np.asarray(converted)


@pytest.mark.parametrize("profile", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_profiles_are_applied_as_littlecms_does(kind: str, profile: bytes) -> None:
    how = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(scene(), kind, icc_profile=profile, **how)
    found = whole(data)
    np.testing.assert_array_equal(found.pixels, by_littlecms(scene(), profile))
    assert found.notices == ()
    assert np.abs(found.pixels.astype(int) - np.asarray(scene())).max() > 8, "the profile matters"
    np.testing.assert_array_equal(whole(data, icc=False).pixels, np.asarray(scene()))


def test_profiles_of_jpegs_are_applied() -> None:
    data = encoded(scene(), "JPEG", icc_profile=DISPLAY_P3)
    np.testing.assert_array_equal(whole(data).pixels, by_littlecms(Image.open(io.BytesIO(data)), DISPLAY_P3))


def test_grey_and_ink_profiles_are_applied() -> None:
    grey = scene().convert("L")
    found = whole(encoded(grey, icc_profile=GREY_GAMMA)).pixels
    np.testing.assert_array_equal(found, by_littlecms(grey, GREY_GAMMA))
    assert np.abs(found[..., 0].astype(int) - np.asarray(grey)).max() > 8
    inks, profile = scene().convert("CMYK"), ink_profile()
    found = whole(encoded(inks, "TIFF", icc_profile=profile)).pixels
    np.testing.assert_array_equal(found, by_littlecms(inks, profile))
    assert np.abs(found.astype(int) - np.asarray(inks.convert("RGB"))).max() > 8


@pytest.mark.parametrize("resize", ["center_crop", "pad", "squash"])
def test_colours_are_converted_after_resizing(resize: str) -> None:
    image = scene(200).crop((0, 0, 200, 150))
    data = encoded(image, icc_profile=DISPLAY_P3)
    found = decode_image(data, ImageOptions(size=SIDE, resize=resize)).pixels.astype(int)
    off = decode_image(data, ImageOptions(size=SIDE, resize=resize, icc=False)).pixels
    first = encoded(Image.fromarray(by_littlecms(image, DISPLAY_P3)))
    before = decode_image(first, ImageOptions(size=SIDE, resize=resize)).pixels
    np.testing.assert_array_equal(found, by_littlecms(Image.fromarray(off), DISPLAY_P3))
    assert np.abs(found - before).mean() < 0.5
    assert np.abs(off.astype(int) - before).mean() > 3
    if resize == "pad":
        assert (found[0] == 255).all(), "what is padded stays white"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16"])
def test_every_mode_takes_a_profile(mode: str) -> None:
    image = scene().convert("L").convert("I").convert("I;16") if mode == "I;16" else scene().convert(mode)
    profile = GREY_GAMMA if mode in ("LA", "1", "I;16") else DISPLAY_P3
    data = encoded(image, icc_profile=profile)
    flat = whole(data, icc=False).pixels
    flat = Image.fromarray(flat[..., 0] if profile is GREY_GAMMA else flat)
    np.testing.assert_array_equal(whole(data).pixels, by_littlecms(flat, profile))


def test_srgb_itself_changes_no_byte() -> None:
    for kind in ("PNG", "JPEG"):
        tagged, plain = encoded(scene(), kind, icc_profile=SRGB), encoded(scene(), kind)
        np.testing.assert_array_equal(whole(tagged).pixels, whole(plain).pixels)


@pytest.mark.parametrize(
    ("profile", "mode", "notice"),
    [
        (b"no profile at all", "RGB", "a broken colour profile was ignored"),
        (DISPLAY_P3[:-40], "RGB", "a broken colour profile was ignored"),
        (DISPLAY_P3, "L", "a colour profile for RGB in an image that is L was ignored"),
        (GREY_GAMMA, "RGB", "a colour profile for GRAY in an image that is RGB was ignored"),
    ],
)
def test_a_profile_of_no_use_is_ignored_and_told(profile: bytes, mode: str, notice: str) -> None:
    image = scene().convert(mode)
    found = whole(encoded(image, icc_profile=profile))
    np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGB")))
    assert found.notices == (notice,)


def texts(**chunks: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text, zip=True)
    return info


def test_a_large_text_does_not_cost_the_image() -> None:
    data = encoded(scene(), pnginfo=texts(workflow="x" * (2 << 20)))
    found = whole(data)
    np.testing.assert_array_equal(found.pixels, np.asarray(scene()))
    assert found.notices == ("a large text of a PNG was passed over",)
    with pytest.raises(RowRejected, match="broken_image"):
        whole(data, strict_images=True)


def test_many_texts_do_not_cost_the_image() -> None:
    data = encoded(scene(), pnginfo=texts(**{f"t{i}": "x" * 900_000 for i in range(80)}))
    np.testing.assert_array_equal(whole(data).pixels, np.asarray(scene()))


def test_a_large_profile_is_still_applied() -> None:
    private = DISPLAY_P3 + bytes(2 << 20)
    profile = struct.pack(">I", len(private)) + private[4:]
    found = whole(encoded(scene(), icc_profile=profile))
    np.testing.assert_array_equal(found.pixels, by_littlecms(scene(), DISPLAY_P3))


def test_large_xmp_still_says_which_side_is_up() -> None:
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>' + " " * (2 << 20)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
    image = scene().crop((0, 0, 64, 32))
    found = whole(encoded(image, pnginfo=info))
    assert (found.original_width, found.original_height) == (32, 64)
    np.testing.assert_array_equal(found.pixels, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def chunk_of(data: bytes, name: bytes) -> int:
    return data.index(name)


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs", b"iCCP"])
def test_damage_beside_the_pixels_is_told(name: bytes) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    data = bytearray(encoded(scene(), pnginfo=info, dpi=(72, 72), icc_profile=SRGB))
    data[chunk_of(bytes(data), name) + 6] ^= 1
    found = whole(bytes(data))
    np.testing.assert_array_equal(found.pixels, np.asarray(scene()))
    assert found.notices == ("a damaged chunk of a PNG, which holds no pixels, was ignored",)
    with pytest.raises(RowRejected, match="broken_image"):
        whole(bytes(data), strict_images=True)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_damage_of_pixels_rejects_the_row(name: bytes) -> None:
    data = bytearray(encoded(scene().convert("P"), transparency=0, pnginfo=texts(workflow="x" * (2 << 20))))
    data[chunk_of(bytes(data), name) + 6] ^= 1
    with pytest.raises(RowRejected, match="broken_image"):
        whole(bytes(data))


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
@pytest.mark.parametrize("side", [64, 61])
def test_a_jpeg_without_its_end_is_whole(side: int, how: dict[str, object]) -> None:
    data = encoded(scene(side), "JPEG", **how)
    for cut in (1, 2):
        found = whole(data[:-cut])
        np.testing.assert_array_equal(found.pixels, whole(data).pixels)
        assert found.notices == ("a JPEG has no end marker, but all its pixels",)
        with pytest.raises(RowRejected, match="broken_image"):
            whole(data[:-cut], strict_images=True)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_that_lacks_data_is_rejected(how: dict[str, object]) -> None:
    data = encoded(scene(), "JPEG", **how)
    wrong = []
    for cut in range(3, len(data) - 600):
        with contextlib.suppress(RowRejected):
            if not np.array_equal(whole(data[:-cut]).pixels, whole(data).pixels):
                wrong.append(cut)
    assert wrong == []


def test_half_a_large_jpeg_is_rejected_although_it_is_made_small() -> None:
    data = encoded(scene(2000), "JPEG")
    half = ImageOptions(size=16, resize="center_crop")
    for share in (0.5, 0.95):  # of a tall one, the crop would be whole
        for image in (data, encoded(scene(2000).crop((0, 0, 500, 2000)), "JPEG")):
            with pytest.raises(RowRejected, match="broken_image"):
                decode_image(image[: int(share * len(image))], half)


def test_a_progressive_jpeg_without_its_last_scan_is_rejected() -> None:
    data = encoded(scene(), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    tables = data.rindex(b"\xff\xc4", 0, scans[-1])
    with pytest.raises(RowRejected, match="broken_image"):
        whole(data[: max(tables, scans[-2])])


@pytest.mark.skipif("AVIF" not in READERS, reason="this Pillow reads no AVIF")
def test_avif_is_read() -> None:
    data = encoded(scene(), "AVIF", quality=90)
    np.testing.assert_array_equal(whole(data).pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(RowRejected, match=f"{name}, which is not read"):
        whole(data)


def codes(folder: str) -> list[list[int]]:
    return pq.read_table(f"{folder}/data/00000.parquet")["encoding"].to_pylist()


def test_a_tagged_photo_has_the_codes_of_its_srgb_twin(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "tagged" / "a.png").write_bytes(encoded(scene(), icc_profile=DISPLAY_P3))
    Image.fromarray(by_littlecms(scene(), DISPLAY_P3)).save(tmp_path / "plain" / "a.png")
    jobs = {
        name: run("encode", "--input", tmp_path / source, *flags, output=tmp_path / name)
        for name, source, flags in (
            ("on", "tagged", ()),
            ("off", "tagged", ("--icc", "off")),
            ("twin", "plain", ()),
        )
    }
    assert all(job.code == 0 for job in jobs.values())
    on, off, twin = (codes(job.output) for job in jobs.values())
    assert on == twin
    assert off != twin
    refused = run("encode", "--input", tmp_path / "tagged", "--icc", "off", output=tmp_path / "on")
    assert refused.code == 2
    assert "icc: the folder has 'srgb', this command asks for 'off'" in refused.err


def test_notices_are_counted_in_the_summary(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(encoded(scene(), "JPEG")[:-2])
    job = encode(tmp_path / "in", tmp_path / "out", tiny_model)
    assert job.code == 0
    assert job.by_reason("notices") == {"a JPEG has no end marker, but all its pixels": 3}
    assert "a JPEG has no end marker, but all its pixels" in job.out
    strict = encode(tmp_path / "in", tmp_path / "strict", tiny_model, "--strict_images")
    assert strict.by_reason("errors") == {"broken_image": 3}


def test_programs_see_the_colours_that_the_command_sees(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(scene(), icc_profile=DISPLAY_P3))
    job = run("encode", "--input", path, output=tmp_path / "out")
    tokenizer = load("emoji")
    for image in (Image.open(path), path.read_bytes(), by_littlecms(scene(), DISPLAY_P3)):
        assert tokenizer.encode([image])[0].tolist() == codes(job.output)[0]
