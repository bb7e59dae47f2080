"""A sample of an output folder is spread over all of it, the same each time, and takes few reads."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.image_folders import grey, noise, opened, write_images
from transforms import storage
from transforms.outputs import tar
from transforms.outputs.layout import LAYOUTS, Layout
from transforms.outputs.sampling import MOST, places, sample_images

FOLDERS = itertools.count()


def rows(count: int, first: int = 0, each: int = 0) -> list[dict[str, Any]]:
    """Rows with the number of each in the grey of its image; with `each`, so many have one key."""
    numbers = range(first, first + count)
    if not each:
        return [{"key": f"k{n}", "caption": f"c{n}", "pixels": grey(n % 256)} for n in numbers]
    return [{"key": f"k{n // each}", "prompt": "p", "sample": n % each, "pixels": grey(n % 256)} for n in numbers]


def sampled(output: str, layout: Layout, total: int, wanted: int, seed: int = 0) -> list[list[tuple[str, int]]]:
    """The key and the grey of each image that is shown."""
    return [
        [(image.row["key"], Image.open(io.BytesIO(image.read()[1])).getpixel((0, 0))[0]) for image in group]
        for _, group in sample_images(output, layout, (), total, wanted, seed)
    ]


@pytest.fixture(params=["disk", "store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "scratch").mkdir()
    return str(tmp_path / "out") if request.param == "disk" else f"memory://sampling-{next(FOLDERS)}"


def test_places_are_spread_by_size_and_in_order() -> None:
    found = places([100, 0, 300], 400)
    assert Counter(item for item, _ in found) == {0: 100, 2: 300}
    assert found == sorted(found)
    assert all(0 <= share <= 1 for _, share in found)
    shares = np.array([share for item, share in found if item == 2])
    assert np.abs(shares - (np.arange(300) + 0.5) / 300).max() < 1 / 300
    assert places([100, 0, 300], 400) == found != places([100, 0, 300], 400, seed=1)


@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_there_are_no_places_in_nothing(sizes: list[int]) -> None:
    assert places(sizes, 4) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_is_shown_of_a_few(name: str, output: str, tmp_path: Path) -> None:
    layout = write_images(output, name, [rows(5), rows(4, 5)], tmp_path / "scratch")
    assert sampled(output, layout, 9, 9) == [[(f"k{n}", n)] for n in range(9)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sample_is_random_in_order_and_the_same_each_time(name: str, output: str, tmp_path: Path) -> None:
    layout = write_images(output, name, [rows(120), rows(80, 120)], tmp_path / "scratch")
    found = sampled(output, layout, 200, 20)
    numbers = [level for ((_, level),) in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 18, "a tar of tiny images ends in a few kilobytes without one"
    assert all(key == f"k{level}" for ((key, level),) in found)
    assert any(b - a != 1 for a, b in itertools.pairwise(numbers)), "no run of neighbours"
    assert 6 <= sum(number >= 120 for number in numbers) <= 10, "by size"
    assert sampled(output, layout, 200, 20) == found
    assert sampled(output, layout, 200, 20, seed=1) != found


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_of_one_row_stay_together(name: str, output: str, tmp_path: Path) -> None:
    layout = write_images(output, name, [rows(200, each=4)], tmp_path / "scratch", batch=50)
    found = sampled(output, layout, 200, 40)
    assert 8 <= len(found) <= 10
    for group in found:
        first = group[0][1]
        assert first % 4 == 0, "from its first image on"
        assert group == [(f"k{first // 4}", first + n) for n in range(4)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_of_very_many_images_of_one_row_the_first_are_taken(name: str, output: str, tmp_path: Path) -> None:
    layout = write_images(output, name, [rows(250, each=250)], tmp_path / "scratch")
    assert sampled(output, layout, 250, 48) == [[("k0", n) for n in range(MOST)]]


def test_few_of_many_objects_are_opened(output: str, tmp_path: Path) -> None:
    layout = write_images(output, "parquet", [rows(3, 3 * i) for i in range(60)], tmp_path / "scratch")
    with opened() as uris:
        assert len(sampled(output, layout, 180, 12)) >= 11
    assert len(set(uris)) <= 13


def test_little_of_a_large_tar_is_read(tmp_path: Path) -> None:
    images = [{"key": f"k{n}", "pixels": noise(n, 192)} for n in range(200)]  # 110 kB each
    layout = write_images(str(tmp_path / "out"), "webdataset", [images], tmp_path)
    uri = str(tmp_path / "out/tars/00000.tar")
    with layout.open_images(uri, str(tmp_path / "out"), ()) as read:
        found = next(read(0.8))
        pixels = np.asarray(Image.open(io.BytesIO(found.read()[1])))
    assert 0.8 - 1.2 * tar.BYTES_BEFORE / storage.stat(uri).size < found.end < 0.8
    assert (pixels == images[int(found.row["key"][1:])]["pixels"]).all()


def test_a_tar_inside_a_row_is_not_taken_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading may begin in the middle of what only looks like the beginning of a member."""
    monkeypatch.setattr(tar, "BYTES_BEFORE", 0)
    plain = [{"key": f"k{n}", "note": "ustar" * 300, "pixels": grey(n)} for n in range(40)]
    layout = write_images(str(tmp_path / "out"), "webdataset", [plain], tmp_path)
    with layout.open_images(str(tmp_path / "out/tars/00000.tar"), "", ()) as read:
        for share in np.linspace(0, 1, 97, endpoint=False).tolist():
            for image in read(share):
                assert Image.open(io.BytesIO(image.read()[1])).getpixel((0, 0))[0] == int(image.row["key"][1:])
