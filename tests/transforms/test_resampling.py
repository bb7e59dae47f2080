"""Machine code resizes as Pillow does, byte for byte, and takes its place unseen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.support.images import encoded, scene
from tests.support.paths import ROOT
from transforms import images, own_preprocessing, resampling
from transforms.image_options import ImageOptions
from transforms.images import decode_image, resized_image
from transforms.resampling import KINDS, MOST_SIDE, TALL, Resampling, Resizer, load, pixels_of, resized
from transforms.target_sizes import TargetSizes

LANCZOS = Resampling.LANCZOS
NEVER = float("inf")
COMPARE = """
import numpy as np
from transforms.compiled_resampling import resample
from transforms.resampling import equals_pillow
assert equals_pillow(resample)
"""


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Of black and white, which overshoot most, and of all levels."""
    random = np.random.default_rng(seed)
    levels = (
        random.integers(0, 256, (height, width, 3)) if seed % 2 else random.integers(0, 2, (height, width, 3)) * 255
    )
    return Image.fromarray(levels.astype(np.uint8))


needs_memory_of_images = pytest.mark.skipif(
    not hasattr(Image.Image, "__arrow_c_array__"), reason="this Pillow does not show the memory of images"
)


@needs_memory_of_images
@pytest.mark.parametrize("resampling", KINDS)
def test_machine_code_gives_the_bytes_of_pillow(resampling: Image.Resampling) -> None:
    pytest.importorskip("numba")
    random, resample = np.random.default_rng(7), load()
    assert resample is not None
    for number in range(80):
        width, height, across, down = (int(side) for side in random.integers(1, 300, 4))
        width = max(width, -(-height // TALL))
        image, size = noise(width, height, number), (across, down)
        left, top = random.uniform(0, width - 0.5), random.uniform(0, height - 0.5)
        box = (left, top, random.uniform(left + 0.1, width), random.uniform(top + 0.1, height))
        box = box if number % 3 else (0.0, 0.0, float(width), float(height))
        pixels = pixels_of(image)
        assert pixels is not None
        expected = np.asarray(image.resize(size, resampling, box=box))
        assert np.array_equal(resized(resample, pixels, size, resampling, box), expected), (image.size, box, size)


@needs_memory_of_images
@pytest.mark.parametrize("high", [3 * TALL, 3 * TALL + 1, 500])
def test_very_high_images_get_the_bytes_of_pillow(high: int) -> None:
    image = noise(3, high)
    assert Resizer(patience=0)(image, (76, 153), LANCZOS) == image.resize((76, 153), LANCZOS)


@needs_memory_of_images
@pytest.mark.slow
@pytest.mark.parametrize("processor", ["nehalem", "haswell", "skylake-avx512"])
def test_other_processors_give_the_same_bytes(processor: str) -> None:
    pytest.importorskip("numba")
    from llvmlite.binding import get_host_cpu_features

    needed = {"nehalem": "sse4.2", "haswell": "avx2", "skylake-avx512": "avx512f"}[processor]
    if not get_host_cpu_features().get(needed):
        pytest.skip(f"this processor has no {needed}")
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", COMPARE], cwd=ROOT, env=environment, check=True)


BUCKETS = TargetSizes(16, buckets=((48, 32), (32, 48)))


@pytest.mark.parametrize(
    "options",
    [
        ImageOptions(32),
        ImageOptions(32, resize="pad"),
        ImageOptions(32, resize="squash"),
        ImageOptions(32, resize="bucket", by_row=BUCKETS),
        ImageOptions(32, resize="area", by_row=TargetSizes(16, area=64)),
        *(ImageOptions(32, resize=family) for family in ("llamagen", "chameleon", "diffusers", "showo", "ibq")),
    ],
    ids=lambda options: options.resize,
)  # fmt: skip
def test_decoded_images_are_those_of_pillow(options: ImageOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    files = [encoded(scene(201, 150), kind) for kind in ("JPEG", "PNG", "WEBP")]
    files += [encoded(scene(90, 201).convert(mode), kind) for mode, kind in (("RGBA", "PNG"), ("CMYK", "JPEG"))]
    pixels: list[list[np.ndarray]] = []
    for resize in (Resizer(NEVER), Resizer(patience=0)):
        for module in (images, own_preprocessing):
            monkeypatch.setattr(module, "resize", resize)
        pixels.append([decode_image(data, options).pixels for data in files])
    for one, other in zip(*pixels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_small_jobs_do_not_load_numba() -> None:
    code = "import io, sys; from PIL import Image; from transforms.resampling import resize, Resampling; "
    code += "resize(Image.new('RGB', (90, 90)), (30, 30), Resampling.LANCZOS); sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@needs_memory_of_images
def test_machine_code_comes_after_some_time_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(resampling, "load", lambda: lambda *given: calls.append(given))
    resize = Resizer(patience=0.01)
    while not calls:
        resize(scene(256, 256), (64, 64), LANCZOS)
    resize(scene(256, 256), (64, 64), LANCZOS)
    assert len(calls) == 2


def test_the_others_go_on_while_one_thread_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling, done = threading.Event(), threading.Event()

    def slow() -> None:
        compiling.set()
        assert done.wait(60)

    monkeypatch.setattr(resampling, "load", slow)
    resize = Resizer(patience=0)
    first = threading.Thread(target=resize, args=(scene(), (8, 8), LANCZOS))
    first.start()
    assert compiling.wait(60)
    assert resize(scene(), (8, 8), LANCZOS) == scene().resize((8, 8), LANCZOS)
    done.set()
    first.join()


def broken(*_: Any) -> None:
    raise ValueError("no machine code today")


@pytest.mark.parametrize("resample", [lambda pixels, box, kind, made: made.fill(1), broken])
def test_what_differs_from_pillow_or_fails_is_not_taken(resample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = pytest.importorskip("transforms.compiled_resampling")
    monkeypatch.setattr(compiled, "resample", resample)
    assert load() is None


def test_pillow_resizes_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transforms.compiled_resampling", None)
    assert load() is None
    assert Resizer(patience=0)(scene(), (8, 8), LANCZOS) == scene().resize((8, 8), LANCZOS)


@pytest.mark.parametrize(
    ("image", "resampling"),
    [
        (scene().convert("L"), LANCZOS),
        (scene().convert("CMYK"), LANCZOS),
        (scene(), Resampling.BILINEAR),
        (scene(16, 16), LANCZOS),  # which has the size already
        (Image.new("RGB", (MOST_SIDE + 1, 1)), LANCZOS),
        (noise(3, TALL * 3 + 1), LANCZOS),
        (noise(2100, 2100), LANCZOS),  # in more than one piece of memory
    ],
)
def test_pillow_resizes_the_rest(
    image: Image.Image, resampling: Image.Resampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.resampling.load", lambda: broken)
    assert Resizer(patience=0)(image, (16, 16), resampling) == image.resize((16, 16), resampling)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("patience", [0, 60])
def test_pixels_are_those_of_the_image_and_cannot_be_written(mode: str, patience: float) -> None:
    image, resizer = scene().convert(mode), Resizer(patience)
    pixels = resizer.pixels(image, (16, 24), LANCZOS)
    expected = image.resize((16, 24), LANCZOS)
    np.testing.assert_array_equal(pixels, np.asarray(expected.convert("RGB")))
    assert not pixels.flags.writeable
    assert resizer(image, (16, 24), LANCZOS) == expected


def test_a_box_that_is_none_is_refused_as_by_pillow() -> None:
    with pytest.raises(ValueError, match="exceed"):
        Resizer(patience=0)(scene(), (8, 8), LANCZOS, (0.0, 0.0, 99.0, 64.0))


@needs_memory_of_images
def test_an_image_in_the_memory_of_arrow_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow ends the process if such an image is asked for its memory."""
    pytest.importorskip("numba")
    levels = pa.array(np.asarray(scene().convert("RGBX")).reshape(-1))
    image = Image.fromarrow(pa.FixedSizeListArray.from_arrays(levels, 4), "RGB", scene().size)
    monkeypatch.setattr(images, "resize", Resizer(patience=0))
    expected = np.asarray(scene().resize((16, 16), LANCZOS))
    np.testing.assert_array_equal(resized_image(image, ImageOptions(16)), expected)
