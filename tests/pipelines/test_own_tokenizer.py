"""A class of a user's goes through the commands, and nothing is made with another one by mistake."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that
from PIL import Image

import vqbeam
from tests.support.own_tokenizer import CODES, NAME, colours, expected_codes, write_colours, write_module
from tests.support.run_command import SMALL, Outcome, decode, encode, run

OWN = ("--tokenizer", NAME)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the model; its class can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    write_module(tmp_path)
    yield write_colours(tmp_path / "colours.txt")
    for name in ("colours", "others"):
        sys.modules.pop(name, None)


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """uint8 [6, 64, 64, 3], as files of a folder, too."""
    pixels = np.random.default_rng(3).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "png").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "png" / f"{number}.png")
    return pixels


def encodings(outcome: Outcome) -> list[list[int]]:
    assert outcome.code == 0, outcome.err
    return [row["encoding"] for row in outcome.rows()]


def test_images_are_encoded_decoded_and_varied(table: Path, images: np.ndarray, tmp_path: Path) -> None:
    tokens = encode(tmp_path / "png", tmp_path / "tokens", table, *OWN)
    codes = expected_codes(table, images)
    np.testing.assert_array_equal(encodings(tokens), codes)
    tokens.check_nothing_lost()
    said = json.loads(pq.read_schema(next((tmp_path / "tokens" / "data").iterdir())).metadata[b"vqbeam"])
    assert (said["tokenizer"], said["model"], said["model_source"]) == (NAME, "colours", str(table))
    tables = f"{tokens.output}/data/*.parquet"
    painted = run("decode", "--input", tables, *OWN, *SMALL, output=tmp_path / "images")
    assert painted.code == 0, painted.err
    for row, wanted in zip(painted.rows(), colours(table)[codes], strict=True):
        pixels = np.asarray(Image.open(Path(painted.output, row["image_path"])))
        np.testing.assert_array_equal(pixels[::8, ::8].reshape(-1, 3), wanted)
    words = ("--input", tables, "--method", "codes", "--keep_tokens", *OWN, *SMALL)
    np.testing.assert_array_equal(encodings(run("vary", *words, "--strength", "0", output=tmp_path / "still")), codes)
    changed = np.array(encodings(run("vary", *words, "--strength", "0.5", output=tmp_path / "moved"))) != codes
    assert 0.2 < changed.mean() < 0.8
    refused = run("vary", "--input", tables, "--method", "latent", *OWN, *SMALL, output=tmp_path / "latent")
    refused.check_refused("gives codes only; choose --method codes")


def test_programs_and_beam_give_the_codes_of_the_command(table: Path, images: np.ndarray) -> None:
    codes = expected_codes(table, images)
    settings = {"tokenizer": NAME, "device": "cpu", "threads": 1, "batch_size": 4}
    loaded = vqbeam.load(str(table), **settings)
    assert (loaded.name, loaded.codebook_size) == ("colours", CODES)
    np.testing.assert_array_equal(loaded.encode(images), codes)
    with beam.Pipeline() as p:
        rows = [{"key": number, "image": png(image)} for number, image in enumerate(images)]
        encoded = p | beam.Create(rows) | vqbeam.EncodeImages(str(table), **settings)

        def check(found: list[dict[str, object]]) -> None:
            assert {row["key"]: list(row["encoding"]) for row in found} == dict(enumerate(codes.tolist()))

        assert_that(encoded.rows, check)
        decoded = encoded.rows | vqbeam.DecodeTokens(str(table), **settings)

        def check_images(found: list[dict[str, object]]) -> None:
            wanted = loaded.decode(codes)
            for row in found:
                np.testing.assert_array_equal(Image.open(io.BytesIO(row["image"])), wanted[row["key"]])

        assert_that(decoded.rows, check_images, "images")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_another_class_or_other_files_do_not_go_on_with_a_job(table: Path, images: np.ndarray, tmp_path: Path) -> None:
    write_module(tmp_path, "others")
    words = (tmp_path / "png", tmp_path / "tokens")
    assert encode(*words, table, *OWN).code == encode(*words, table, *OWN).code == 0
    other = encode(*words, table, "--tokenizer", "others:Colours")
    assert (other.code, "tokenizer: the folder has 'colours:Colours', this command asks" in other.err) == (2, True)
    write_colours(table, seed=9)
    other = encode(*words, table, *OWN)
    assert (other.code, "weights_id: the folder has" in other.err) == (2, True), other.err
    assert encode(*words, "emoji").code == 2


def test_tokens_of_another_class_are_refused_and_none_is_run_unasked(
    table: Path, images: np.ndarray, tmp_path: Path
) -> None:
    write_module(tmp_path, "others")
    tokens = encode(tmp_path / "png", tmp_path / "tokens", table, *OWN)
    tables = f"{tokens.output}/data/*.parquet"
    sys.modules.pop("colours")
    unasked = run("decode", "--input", tables, *SMALL, output=tmp_path / "images")
    unasked.check_refused(f"the class {NAME} made these tokens: name it by --tokenizer {NAME} if you trust it")
    assert "colours" not in sys.modules
    nonsense = "the codes would look valid and decode to nonsense"
    decode(tables, tmp_path / "images", table, "--tokenizer", "others:Colours").check_refused(nonsense)
    decode(tables, tmp_path / "images", "emoji").check_refused(nonsense)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere:Mine", "tokenizer nowhere:Mine: cannot import nowhere"), ("colours:Mine", "has no class Mine")],
)
def test_a_class_that_is_not_there_is_told(
    name: str, message: str, table: Path, images: np.ndarray, tmp_path: Path
) -> None:
    encode(tmp_path / "png", tmp_path / "tokens", table, "--tokenizer", name).check_refused(message)


def test_a_class_without_a_model_or_without_meaning_is_told(table: Path, images: np.ndarray, tmp_path: Path) -> None:
    source = tmp_path / "png"
    run("encode", "--input", source, *OWN, *SMALL, output=tmp_path / "t").check_refused("name the file or folder that")
    words = ("vary", "--input", source, "--method", "model", *OWN, *SMALL)
    run(*words, output=tmp_path / "t").check_refused("--tokenizer has no meaning with --method model")
    write_module(tmp_path, "others", **{'"center_crop"': '"stretch"'})
    strange = encode(source, tmp_path / "t", table, "--tokenizer", "others:Colours")
    strange.check_refused("'stretch' is unknown; choose one of center_crop")


def test_codes_that_the_class_should_not_give_end_the_job(table: Path, images: np.ndarray, tmp_path: Path) -> None:
    write_module(tmp_path, "others", **{".argmin(-1)": ".argmin(-1) + 216"})
    failed = encode(tmp_path / "png", tmp_path / "tokens", table, "--tokenizer", "others:Colours")
    assert failed.code != 0
    assert "tokenizer others:Colours: encode() gave codes from" in failed.out
    assert "Traceback" not in failed.err + failed.out
    assert failed.rows() == []


@pytest.mark.slow
def test_every_worker_process_imports_the_class(table: Path, images: np.ndarray, tmp_path: Path) -> None:
    words = ("--workers", "2", "--rows_per_shard", "3")
    made = encode(tmp_path / "png", tmp_path / "tokens", table, *OWN, *words)
    np.testing.assert_array_equal(encodings(made), expected_codes(table, images))
