"""What the contact sheets of whole commands show: originals beside variations, ranked images by score."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.run_command import SMALL, run
from tests.support.vary_runs import vary, write_images, write_tokens
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.outputs import contact_sheet
from transforms.outputs.layout import LAYOUTS
from transforms.outputs.sheet import Panel, fitted

Drawn = list[tuple[list[Panel], str]]
GOOD = ["k0", "k1", "k3", "k4", "k5"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The panels and the title of each sheet."""
    found: Drawn = []
    draw = contact_sheet.draw_sheet

    def noted(panels: Any, title: str) -> Image.Image:
        found.append((panels, title))
        return draw(panels, title)

    monkeypatch.setattr(contact_sheet, "draw_sheet", noted)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("in") / "images.parquet")


def originals(panels: list[Panel]) -> dict[str, np.ndarray]:
    return {panel.key: np.asarray(panel.original.image) for panel in panels if panel.original}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_stands_at_the_left_of_its_variations(
    source: Path, tiny_generator: Path, tmp_path: Path, drawn: Drawn, layout: str
) -> None:
    """The rejected row among them shifts none."""
    flags = ("--images_per_input", 2, "--rows_per_shard", 4, "--image_layout", layout, "--contact_sheet")
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, *flags)
    assert outcome.code == 0, outcome.err
    ((panels, title),) = drawn
    assert title == "10 of 10 images"
    assert [(panel.key, len(panel.pictures)) for panel in panels] == [(key, 2) for key in GOOD]
    found = originals(panels)
    files = pq.read_table(source)["image"].to_pylist()
    side = panels[0].original.image.width  # type: ignore[union-attr]
    assert list(found) == GOOD
    for key in GOOD:
        np.testing.assert_array_equal(
            found[key], decode_image(files[int(key[1:])], ImageOptions(side)).pixels, err_msg=key
        )


def test_of_tokens_it_is_what_they_stand_for(source: Path, tiny_generator: Path, tmp_path: Path, drawn: Drawn) -> None:
    tokens = write_tokens(source, tmp_path / "tokens", tiny_generator / "vqgan")
    flags = ("--strength", 0, "--method", "codes", "--contact_sheet")
    outcome = vary(tiny_generator, tmp_path / "out", "--input", tokens, *flags)
    assert outcome.code == 0, outcome.err
    ((panels, _),) = drawn
    for key, original in originals(panels).items():
        (panel,) = [panel for panel in panels if panel.key == key]
        np.testing.assert_array_equal(
            np.asarray(panel.pictures[0].image), np.asarray(fitted(Image.fromarray(original)))
        )
    assert list(originals(panels)) == GOOD


def test_a_source_that_has_changed_since_has_no_originals(tiny_generator: Path, tmp_path: Path, drawn: Drawn) -> None:
    source = write_images(tmp_path / "in" / "images.parquet")
    assert vary(tiny_generator, tmp_path / "out", "--input", source).code == 0
    write_images(source, rows=7)
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, "--contact_sheet")
    assert outcome.code == 0, outcome.err
    ((panels, _),) = drawn
    assert [panel.original for panel in panels] == [None] * 5


def test_ranked_images_stand_best_first_with_their_scores(source: Path, tmp_path: Path, drawn: Drawn) -> None:
    outcome = run("rank", "--input", source, "--keep_images", "--contact_sheet", *SMALL, output=tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert f"{outcome.output}/contact_sheet.png" in outcome.out
    ((panels, title),) = drawn
    assert title == "5 of 5 images, best first"
    scores = {row["key"]: row["clip_score"] for row in outcome.rows()}
    assert [panel.key for panel in panels] == sorted(GOOD, key=lambda key: -scores[key])
    assert [panel.pictures[0].note for panel in panels] == [f"CLIP {scores[panel.key]:.3f}" for panel in panels]
    files = pq.read_table(source)["image"].to_pylist()
    for panel in panels:
        expected = fitted(Image.open(io.BytesIO(files[int(panel.key[1:])])).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(panel.pictures[0].image), np.asarray(expected))


def test_rank_shows_only_images_that_it_keeps(source: Path, tmp_path: Path) -> None:
    outcome = run("rank", "--input", source, "--contact_sheet", *SMALL, output=tmp_path / "out")
    assert outcome.code == 2
    assert "--contact_sheet shows the images that rank keeps: add --keep_images" in outcome.err
