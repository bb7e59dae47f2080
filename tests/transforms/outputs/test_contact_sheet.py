"""The contact sheet of an output folder: how many of how many, scores, and what stands for a caption."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.image_folders import grey, write_images
from transforms import storage
from transforms.outputs import contact_sheet
from transforms.outputs.contact_sheet import SHOWN, note, title, write_contact_sheet
from transforms.outputs.layout import LAYOUTS
from transforms.outputs.sheet import Panel


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Panel], str]]:
    """The panels and the title of each sheet that is drawn."""
    found: list[tuple[list[Panel], str]] = []
    draw = contact_sheet.draw_sheet

    def noted(shown: list[Panel], said: str) -> Image.Image:
        found.append((shown, said))
        return draw(shown, said)

    monkeypatch.setattr(contact_sheet, "draw_sheet", noted)
    return found


def levels(panel: Panel) -> list[int]:
    return [picture.image.getpixel((0, 0))[0] for picture in panel.pictures]  # type: ignore[index]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("store", [False, True])
def test_a_sample_of_what_is_there(
    name: str, store: bool, tmp_path: Path, panels: list[tuple[list[Panel], str]]
) -> None:
    output = f"memory://sheet-{name}" if store else str(tmp_path / "out")
    rows = [{"key": f"k{n}", "caption": f"c{n}" if n % 2 else "", "pixels": grey(n % 256)} for n in range(287)]
    layout = write_images(output, name, [rows[:200], rows[200:]], tmp_path)
    write_contact_sheet(output, layout, 287)
    ((shown, said),) = panels
    assert said == f"{len(shown)} of 287 images"
    assert SHOWN - 2 <= len(shown) <= SHOWN
    assert all(panel.caption == (f"c{panel.key[1:]}" if int(panel.key[1:]) % 2 else "") for panel in shown)
    assert all(levels(panel) == [int(panel.key[1:]) % 256] for panel in shown)
    sheet = storage.read_bytes(f"{output}/contact_sheet.png")
    assert Image.open(io.BytesIO(sheet)).format == "PNG"
    write_contact_sheet(output, layout, 287)
    assert storage.read_bytes(f"{output}/contact_sheet.png") == sheet


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_and_ranks_stand_with_the_images_of_a_prompt(
    name: str, tmp_path: Path, panels: list[tuple[list[Panel], str]]
) -> None:
    rows = [
        {"key": "k", "prompt": "a", "sample": 1 - n, "clip_score": 0.5 - n / 4, "rank": n + 1, "pixels": grey(n)}
        for n in range(2)
    ]
    layout = write_images(str(tmp_path / "out"), name, [rows], tmp_path)
    write_contact_sheet(str(tmp_path / "out"), layout, 2)
    ((panel,), said) = panels[0]
    assert said == "2 of 2 images"
    assert [picture.note for picture in panel.pictures] == ["#1 CLIP 0.500", "#2 CLIP 0.250"]
    assert (panel.caption, levels(panel)) == ("a", [0, 1])


def test_the_best_come_first_if_asked_for(tmp_path: Path, panels: list[tuple[list[Panel], str]]) -> None:
    scores = [0.1, 0.3, None, 0.2]
    rows = [{"key": f"k{n}", "caption": "c", "clip_score": score, "pixels": grey(n)} for n, score in enumerate(scores)]
    layout = write_images(str(tmp_path / "out"), "parquet", [rows], tmp_path)
    write_contact_sheet(str(tmp_path / "out"), layout, 4, by_score=True)
    ((shown, said),) = panels
    assert said == "4 of 4 images, best first"
    assert [panel.key for panel in shown] == ["k1", "k3", "k0", "k2"]


def test_originals_are_asked_for_by_shard_and_row(tmp_path: Path, panels: list[tuple[list[Panel], str]]) -> None:
    rows = [{"key": f"k{n // 2}", "caption": "c", "sample": n % 2, "pixels": grey(n)} for n in range(8)]
    for name in LAYOUTS:
        output = str(tmp_path / name)
        layout = write_images(output, name, [rows[:4], rows[4:]], tmp_path)
        asked: list[tuple[int, int]] = []

        def originals(wanted: Any, asked: list[tuple[int, int]] = asked) -> list[Image.Image | None]:
            asked += wanted
            return [None if row else Image.fromarray(grey(200 + shard)) for shard, row in wanted]

        write_contact_sheet(output, layout, 8, originals=originals)
        assert asked == [(0, 0), (0, 2), (1, 0), (1, 2)]
        shown = panels[-1][0]
        assert [panel.original and panel.original.note for panel in shown] == ["original", None, "original", None]
        assert shown[2].original is not None
        assert shown[2].original.image.getpixel((0, 0)) == (201, 201, 201)


def test_an_empty_folder_has_no_sheet(tmp_path: Path) -> None:
    layout = write_images(str(tmp_path / "out"), "files", [], tmp_path)
    write_contact_sheet(str(tmp_path / "out"), layout, 0)
    assert not (tmp_path / "out").exists()


def test_titles() -> None:
    assert [title(48, 10_000_000), title(1, 1)] == ["48 of 10,000,000 images", "1 of 1 image"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, ""),
        ({"clip_score": 0.25}, "CLIP 0.250"),
        ({"clip_score": None, "rank": None}, ""),
        ({"clip_score": float("nan"), "rank": 3}, "#3"),
        ({"clip_score": "high", "rank": "first"}, ""),
    ],
)
def test_notes_say_what_is_known(row: dict[str, Any], text: str) -> None:
    assert note(row) == text
