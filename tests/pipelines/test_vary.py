"""Variations from one end to the other: three methods, images and tokens, every layout."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.run_command import SMALL, Outcome, run
from tests.support.tiny_generator import CODES, SIDE, generate, write_prompts
from tests.support.vary_runs import BROKEN, pixels, vary, write_images, write_tokens

METHODS = ("latent", "codes", "model")
GOOD = [f"k{row}" for row in range(6) if row != BROKEN]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("in") / "images.parquet")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path, source: Path) -> Path:
    return write_tokens(source, tmp_path_factory.mktemp("tokens") / "out", tiny_generator / "vqgan")


@pytest.fixture(scope="module")
def reconstructions(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path, tokens: Path) -> Outcome:
    output = tmp_path_factory.mktemp("decoded") / "out"
    return run("decode", "--input", tokens, "--model", tiny_generator / "vqgan", *SMALL, output=output)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_strength_0_gives_the_reconstructions_exactly(
    method: str,
    kind: str,
    source: Path,
    tokens: Path,
    reconstructions: Outcome,
    tiny_generator: Path,
    tmp_path: Path,
) -> None:
    path = source if kind == "images" else tokens
    flags = ("--method", method, "--strength", 0, "--images_per_input", 3, "--keep_tokens")
    outcome = vary(tiny_generator, tmp_path / "out", "--input", path, *flags)
    found, expected = pixels(outcome), pixels(reconstructions)
    assert set(found) == {(key, sample) for key in GOOD for sample in range(3)}
    for (key, _), image in found.items():
        np.testing.assert_array_equal(image, expected[key, 0])
    codes = {row["key"]: row["encoding"] for row in pq.read_table(tokens).to_pylist()}
    assert all(row["encoding"] == codes[row["key"]] for row in outcome.rows())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_variations_differ_from_each_other_and_are_what_their_codes_decode_to(
    method: str, kind: str, source: Path, tokens: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    flags = ("--method", method, "--strength", 0.8, "--images_per_input", 3, "--keep_tokens")
    path = source if kind == "images" else tokens
    outcome = vary(tiny_generator, tmp_path / "out", "--input", path, *flags)
    found = pixels(outcome)
    assert len({image.tobytes() for image in found.values()}) == len(found) == 3 * len(GOOD)
    outcome.check_nothing_lost()

    decoded = run(
        "decode", "--input", f"{outcome.output}/data", "--code_column", "encoding", *SMALL,
        "--model", tiny_generator / "vqgan", "--columns", output=tmp_path / "decoded",
    )  # fmt: skip
    assert decoded.code == 0, decoded.err
    again = [np.asarray(Image.open(io.BytesIO(decoded.read(row["image_path"])))) for row in decoded.rows()]
    np.testing.assert_array_equal(np.stack(again), np.stack(list(found.values())))


def test_a_row_is_an_image_with_all_that_came_with_its_input(
    source: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    flags = ("--images_per_input", 2, "--seed", 7, "--keep_tokens", "--contact_sheet")
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, *flags)
    assert outcome.code == 0, outcome.err
    rows = outcome.rows()
    assert [(row["key"], row["sample"], row["n"]) for row in rows] == [
        (key, sample, int(key[1:])) for key in GOOD for sample in range(2)
    ]
    assert rows[0].keys() == {
        "key", "caption", "sample", "seed", "encoding", "image_path", "width", "height", "n",
    }  # fmt: skip
    assert {(row["seed"], row["width"], row["height"], len(row["encoding"])) for row in rows} == {
        (7, SIDE, SIDE, CODES)
    }
    assert rows[0]["caption"] == "a red apple 0"
    image = Image.open(io.BytesIO(outcome.read(rows[1]["image_path"])))
    assert image.info == {
        "caption": "a red apple 0", "seed": "7", "sample": "1", "key": "k0",
        "method": "latent", "strength": "0.3", "model": "tiny-vqgan",
    }  # fmt: skip
    assert outcome.read("contact_sheet.png").startswith(b"\x89PNG")
    assert run("verify", outcome.output).code == 0


def test_the_table_says_how_it_was_made(source: Path, tiny_generator: Path, tmp_path: Path) -> None:
    flags = ("--method", "model", "--keep_rows", 3, "--images_per_input", 2, "--guidance_scale", 2)
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, *flags)
    assert outcome.code == 0, outcome.err
    metadata = pq.read_schema(io.BytesIO(outcome.read("data/00000.parquet"))).metadata
    made = json.loads(metadata[b"vqbeam"])
    assert (made["command"], made["method"], made["keep_rows"]) == ("vary", "model", 3)
    assert made["drawing"]["guidance_scale"] == 2
    assert set(made["models"]) == {"bart", "vqgan"}
    assert "strength" not in made


def test_images_that_cannot_be_read_are_rejected_once_a_variation(
    source: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, "--images_per_input", 5)
    assert [(row["key"], row["error"]) for row in outcome.rejected()] == [("k2", "not_an_image")] * 5
    assert (outcome.total("rows_read"), outcome.total("rows_written")) == (30, 25)
    outcome.check_nothing_lost()


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_every_layout_holds_the_same_images(layout: str, tokens: Path, tiny_generator: Path, tmp_path: Path) -> None:
    flags = ("--input", tokens, "--method", "codes", "--images_per_input", 2, "--image_format", "png")
    expected = [image.tobytes() for image in pixels(vary(tiny_generator, tmp_path / "files", *flags)).values()]
    outcome = vary(tiny_generator, tmp_path / layout, *flags, "--image_layout", layout)
    assert outcome.code == 0, outcome.err
    if layout == "files":
        files = [outcome.read(row["image_path"]) for row in outcome.rows()]
    elif layout == "parquet":
        files = [row["image"]["bytes"] for row in outcome.rows()]
    else:
        with tarfile.open(fileobj=io.BytesIO(outcome.read("tars/00000.tar"))) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        files = [data for name, data in members.items() if name.endswith(".png")]
        described = [json.loads(data) for name, data in members.items() if name.startswith("0") and "json" in name]
        assert Counter(row["key"] for row in described) == dict.fromkeys(GOOD, 2)
    assert [np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in files] == expected


def test_a_completion_keeps_the_upper_rows_of_codes(tokens: Path, tiny_generator: Path, tmp_path: Path) -> None:
    flags = ("--input", tokens, "--method", "model", "--keep_rows", 2, "--images_per_input", 5, "--keep_tokens")
    outcome = vary(tiny_generator, tmp_path / "out", *flags, "--guidance_scale", 1, "--top_k", 0)
    assert outcome.code == 0, outcome.err
    codes = {row["key"]: row["encoding"] for row in pq.read_table(tokens).to_pylist()}
    rows = outcome.rows()
    assert all(row["encoding"][:8] == codes[row["key"]][:8] for row in rows)
    assert len({tuple(row["encoding"][8:]) for row in rows}) == len(rows)


def test_a_completion_of_nothing_is_what_generate_draws(tokens: Path, tiny_generator: Path, tmp_path: Path) -> None:
    """Same captions, keys and seed."""
    rows = [{"key": key, "prompt": f"a red apple {key[1:]}"} for key in GOOD]
    prompts = write_prompts(tmp_path / "prompts.jsonl", rows)
    words = ("--input", prompts, "--seed", 5, "--images_per_prompt", 3, "--keep_tokens")
    drawn = generate(tiny_generator, tmp_path / "drawn", *words)
    flags = ("--method", "model", "--strength", 1, "--images_per_input", 3, "--keep_tokens", "--seed", 5)
    varied = vary(tiny_generator, tmp_path / "out", "--input", tokens, *flags)
    assert [row["encoding"] for row in varied.rows()] == [row["encoding"] for row in drawn.rows()]


def test_rows_whose_caption_cannot_be_read_are_rejected_by_method_model(tiny_generator: Path, tmp_path: Path) -> None:
    captions = ["apple", None, "rocket", " ", "?!", "a" * 70_000]
    source = write_images(tmp_path / "in.parquet", captions=captions)
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, "--method", "model", "--images_per_input", 2)
    assert outcome.code == 0, outcome.err
    expected = {"missing_caption": 4, "empty_prompt": 2, "prompt_too_long": 2, "not_an_image": 2}
    assert outcome.by_reason("errors") == expected
    assert [row["key"] for row in outcome.rows()] == ["k0", "k0"]
    outcome.check_nothing_lost()


def test_captions_are_not_needed_by_the_other_methods(tiny_generator: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in.parquet", captions=["apple", None, None, None, None, None])
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, "--images_per_input", 2)
    assert [row["caption"] for row in outcome.rows()] == ["apple"] * 2 + [None] * 8
    assert outcome.total("missing_captions") == 8


def test_the_first_of_several_captions_is_drawn(tiny_generator: Path, tmp_path: Path) -> None:
    several = [["", "a red apple", "rocket"]] * 6
    flags = ("--method", "model", "--strength", 1, "--keep_tokens")
    outcome = vary(
        tiny_generator, tmp_path / "1", "--input", write_images(tmp_path / "a.parquet", captions=several), *flags
    )
    single = write_images(tmp_path / "b.parquet", captions=["a red apple"] * 6)
    other = vary(tiny_generator, tmp_path / "2", "--input", single, *flags)
    assert [row["encoding"] for row in outcome.rows()] == [row["encoding"] for row in other.rows()]
    assert outcome.rows()[0]["caption"] == several[0]


def test_tokens_are_told_by_their_column_beside_paths_of_images(
    tokens: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    """As generate writes them with --keep_tokens."""
    table = pq.read_table(tokens).drop_columns(["original_width", "original_height"])
    table = table.append_column("image_path", pa.array(["images/a.png"] * len(table)))
    table = table.append_column("sample", pa.array([7] * len(table)))
    pq.write_table(table, tmp_path / "drawn.parquet")
    words = ("--input", tmp_path / "drawn.parquet", "--rename", "image_path=varied_from")
    outcome = vary(tiny_generator, tmp_path / "out", *words)
    assert outcome.code == 0, outcome.err
    assert {(row["varied_from"], row["input_sample"]) for row in outcome.rows()} == {("images/a.png", 7)}
    assert "the input's are kept, sample as input_sample (" in outcome.err


def test_images_that_are_files_of_their_own_are_found_from_their_table(
    reconstructions: Outcome, tiny_generator: Path, tmp_path: Path
) -> None:
    outcome = vary(
        tiny_generator, tmp_path / "out", "--input", Path(reconstructions.output) / "data", "--method", "codes"
    )
    assert outcome.code == 0, outcome.err
    assert [row["key"] for row in outcome.rows()] == GOOD


def test_tokens_are_varied_by_the_model_that_made_them(tokens: Path, tmp_path: Path) -> None:
    outcome = run("vary", "--input", tokens, *SMALL, output=tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert len(outcome.rows()) == len(GOOD)


def test_folders_of_images_are_varied_too(tiny_generator: Path, tmp_path: Path) -> None:
    for row in pq.read_table(write_images(tmp_path / "in.parquet")).to_pylist():
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{row['key']}.png").write_bytes(row["image"])
    outcome = vary(tiny_generator, tmp_path / "out", "--input", tmp_path / "photos", "--method", "codes")
    assert outcome.code == 0, outcome.err
    assert [row["key"] for row in outcome.rows()] == GOOD
