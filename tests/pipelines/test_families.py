"""Tokenizers of other families go through every command as dalle-mini's does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that
from PIL import Image

import vqbeam
from tests.support.families import (
    CHAMELEON,
    DIFFUSERS,
    EMU3,
    IBQ,
    LFQ,
    LLAMAGEN,
    MASKGIT,
    SHOWO,
    golden,
    llamagen_weights,
    write_pt,
    write_transformers_chameleon,
)
from tests.support.run_command import SMALL, Outcome, decode, encode, run


@dataclass(frozen=True)
class Family:
    """`model` is the folder or file in which a folder is prepared, `asked` what must be said of it."""

    golden: Path
    model: Callable[[Path], Path]
    asked: tuple[str, ...] = ()
    preparing: tuple[str, ...] = ()
    decodes: bool = True
    points: bool = True  # codes are points among the latents
    own_rule: str = ""  # by default the one of its name

    @property
    def options(self) -> dict[str, object]:
        """What is asked, as programs give it."""
        said = dict(zip(self.asked[::2], self.asked[1::2], strict=True))
        options: dict[str, object] = {"image_size": int(said["--image_size"])} if "--image_size" in said else {}
        return options | ({"pixel_range": (0.0, 1.0)} if "--pixel_range" in said else {})

    @property
    def rule(self) -> str:
        return self.preparing[1] if self.preparing else self.own_rule or self.golden.name.removesuffix("_small")

    @property
    def codes(self) -> np.ndarray:
        """int32 [images, codes] by the name of each file, in the order of names."""
        order = json.loads((self.golden / "png_order.json").read_text())["png_order"]
        codes = golden(self.golden, "png_codes")
        return codes.reshape(len(codes), -1)[np.argsort(order)]


FAMILIES = {
    "llamagen": Family(LLAMAGEN, lambda folder: LLAMAGEN / "vq_ds2_small.pt", ("--image_size", "32")),
    "chameleon": Family(CHAMELEON, lambda folder: CHAMELEON, preparing=("--resize", "chameleon")),
    "chameleon of transformers": Family(CHAMELEON, write_transformers_chameleon, decodes=False),
    "diffusers": Family(
        DIFFUSERS, lambda folder: DIFFUSERS, ("--image_size", "40", "--pixel_range", "0,1"), ("--resize", "diffusers")
    ),
    "showo": Family(SHOWO, lambda folder: SHOWO, ("--image_size", "40"), points=False),
    "ibq": Family(IBQ, lambda folder: IBQ, points=False),
    "lfq": Family(LFQ, lambda folder: LFQ, points=False, own_rule="ibq"),
    "maskgit": Family(MASKGIT, lambda folder: MASKGIT, ("--image_size", "40"), own_rule="llamagen"),
    "emu3": Family(EMU3, lambda folder: EMU3, ("--image_size", "32"), ("--resize", "llamagen")),
}
DECODING = [name for name, family in FAMILIES.items() if family.decodes]
COVERED = ("diffusers", "showo", "ibq", "lfq", "maskgit", "emu3")  # by the others, in longer chains
CHAINS = [pytest.param(name, marks=[pytest.mark.slow] if name in COVERED else []) for name in DECODING]
LONG = ("lfq", "maskgit", "emu3")
PIPELINES = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in FAMILIES]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Family, Path, Outcome]]:
    """Each family with its model and the tokens of its golden images."""
    made = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp("family")
        model = family.model(folder / "model")
        flags = (*family.asked, *family.preparing)
        made[name] = family, model, encode(family.golden / "png", folder / "tokens", model, *flags)
    return made


def provenance(outcome: Outcome) -> dict[str, object]:
    (table, *_) = Path(outcome.output).glob("data/*.parquet")
    return json.loads(pq.read_schema(table).metadata[b"vqbeam"])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_codes_of_files_are_those_of_the_original(name: str, runs: dict) -> None:
    family, _, tokens = runs[name]
    assert tokens.code == 0, tokens.err
    tokens.check_nothing_lost()
    np.testing.assert_array_equal([row["encoding"] for row in tokens.rows()], family.codes)
    said = provenance(tokens)
    assert said["preprocessing"]["resize"] == family.rule
    assert (said["preprocessing"]["icc"], said["preprocessing"]["jpeg_scale"]) == ("off", "off")
    assert said.get("image_size") == family.options.get("image_size")


@pytest.mark.parametrize("name", DECODING)
def test_tokens_say_all_that_decoding_needs(name: str, runs: dict, tmp_path: Path) -> None:
    family, model, tokens = runs[name]
    images = run("decode", "--input", f"{tokens.output}/data/*.parquet", *SMALL, output=tmp_path / "images")
    assert images.code == 0, images.err
    assert images.total("rows_written") == len(tokens.rows())
    loaded = vqbeam.load(str(model), device="cpu", threads=1, batch_size=4, **family.options)
    expected = loaded.decode(np.array([row["encoding"] for row in tokens.rows()]))
    for row, pixels in zip(images.rows(), expected, strict=True):
        np.testing.assert_array_equal(Image.open(Path(images.output, row["image_path"])), pixels)


def test_what_only_encodes_says_so(runs: dict, tmp_path: Path) -> None:
    _, model, tokens = runs["chameleon of transformers"]
    tables = f"{tokens.output}/data/*.parquet"
    wanted = "holds an encoder only: it can encode, not decode"
    decode(tables, tmp_path / "images", model).check_refused(wanted)
    run("vary", "--input", tables, "--model", model, *SMALL, output=tmp_path / "varied").check_refused(wanted)
    images = decode(tables, tmp_path / "images", CHAMELEON)
    assert images.code == 0, images.err


@pytest.mark.parametrize("name", FAMILIES)
def test_a_converted_model_gives_the_same_codes_and_needs_no_flags(name: str, runs: dict, tmp_path: Path) -> None:
    family, model, tokens = runs[name]
    converted = run("convert", model, tmp_path / "own", *family.asked)
    assert converted.code == 0, converted.err
    again = encode(family.golden / "png", tmp_path / "tokens", tmp_path / "own", *family.preparing)
    assert [row["encoding"] for row in again.rows()] == [row["encoding"] for row in tokens.rows()]
    assert provenance(again)["codebook_id"] == provenance(tokens)["codebook_id"]
    assert provenance(again)["weights_id"] == provenance(tokens)["weights_id"]


@pytest.mark.parametrize("method", ["latent", "codes"])
@pytest.mark.parametrize("name", CHAINS)
def test_images_and_tokens_are_varied(name: str, method: str, runs: dict, tmp_path: Path) -> None:
    family, model, tokens = runs[name]
    words = ("--model", model, "--method", method, "--keep_tokens", *SMALL)
    still = run(
        "vary", "--input", family.golden / "png", *words, *family.asked, *family.preparing, "--strength", "0",
        output=tmp_path / "still",
    )  # fmt: skip
    assert still.code == 0, still.err
    np.testing.assert_array_equal([row["encoding"] for row in still.rows()], family.codes)
    moved = run(
        "vary", "--input", f"{tokens.output}/data/*.parquet", *words, "--strength", "0.5", output=tmp_path / "moved"
    )
    if method == "latent" and not family.points:
        moved.check_refused("are no points among its latents; give the images themselves")
        return
    assert moved.code == 0, moved.err
    changed = np.array([row["encoding"] for row in moved.rows()]) != family.codes
    assert 0 < changed.mean() < 1
    assert provenance(moved).get("image_size") == family.options.get("image_size")


@pytest.mark.parametrize("name", DECODING)
def test_tokens_of_another_codebook_are_refused(name: str, runs: dict, tiny_model: Path, tmp_path: Path) -> None:
    _, _, tokens = runs[name]
    refused = decode(f"{tokens.output}/data/*.parquet", tmp_path / "images", tiny_model)
    refused.check_refused("the codes would look valid and decode to nonsense")


@pytest.mark.parametrize("name", CHAINS)
def test_decoded_images_are_ranked(name: str, runs: dict, tiny_clip: Path, tmp_path: Path) -> None:
    _, _, tokens = runs[name]
    images = run(
        "decode", "--input", f"{tokens.output}/data/*.parquet", "--image_layout", "parquet", *SMALL,
        output=tmp_path / "images",
    )  # fmt: skip
    assert images.code == 0, images.err
    tables = tmp_path / "captioned"
    tables.mkdir()
    for table in Path(images.output, "data").iterdir():
        read = pq.read_table(table)
        index = read.schema.get_field_index("caption")
        pq.write_table(read.set_column(index, "caption", [["a picture"] * len(read)]), tables / table.name)
    words = ("--clip", tiny_clip, "--image_column", "image", *SMALL)
    ranked = run("rank", "--input", tables, *words, output=tmp_path / "ranked")
    assert ranked.code == 0, ranked.err
    assert len(ranked.rows()) == len(tokens.rows())


@pytest.mark.parametrize("name", PIPELINES)
def test_programs_and_beam_give_the_codes_of_the_command(name: str, runs: dict) -> None:
    family, model, _ = runs[name]
    files = [path.read_bytes() for path in sorted((family.golden / "png").iterdir())]
    resize = family.preparing[1] if family.preparing else "auto"
    asked = family.options
    loaded = vqbeam.load(str(model), device="cpu", threads=1, batch_size=4, resize=resize, **asked)
    np.testing.assert_array_equal(loaded.encode(files), family.codes)
    settings = {"device": "cpu", "threads": 1, "batch_size": 4, **asked}
    with beam.Pipeline() as p:
        rows = [{"key": str(number), "image": data} for number, data in enumerate(files)]
        encoded = p | beam.Create(rows) | vqbeam.EncodeImages(str(model), resize=resize, **settings)
        found = encoded.rows | beam.Map(lambda row: (row["key"], [int(code) for code in row["encoding"]]))
        wanted = {str(number): codes.tolist() for number, codes in enumerate(family.codes)}

        def check(pairs: list[tuple[str, list[int]]]) -> None:
            assert dict(pairs) == wanted

        assert_that(found, check)
        if family.decodes:
            decoded = encoded.rows | vqbeam.DecodeTokens(str(model), **settings)
            assert_that(decoded.rows | beam.combiners.Count.Globally(), lambda found: equals(found, len(files)), "n")


def equals(found: list[int], wanted: int) -> None:
    assert found == [wanted]


def test_conversion_keeps_the_rule_that_files_do_not_say(runs: dict, tmp_path: Path) -> None:
    converted = run("convert", CHAMELEON, tmp_path / "own", "--resize", "chameleon")
    assert converted.code == 0, converted.err
    tokens = encode(CHAMELEON / "png", tmp_path / "tokens", tmp_path / "own")
    np.testing.assert_array_equal([row["encoding"] for row in tokens.rows()], FAMILIES["chameleon"].codes)


def test_without_the_image_size_the_command_asks_for_it(tmp_path: Path) -> None:
    encode(LLAMAGEN / "png", tmp_path / "out", LLAMAGEN).check_refused("give --image_size (256, 384 and 512 are in use")


def test_two_sets_of_weights_are_asked_about_and_told_in_provenance(tmp_path: Path) -> None:
    averaged = {name: value * 0.5 for name, value in llamagen_weights().items()}
    model = write_pt(tmp_path / "model", ema=averaged, model=llamagen_weights())
    shutil.copytree(LLAMAGEN / "png", tmp_path / "png")
    encode(tmp_path / "png", tmp_path / "out", model, "--image_size", "32").check_refused("ema or raw")
    made = encode(tmp_path / "png", tmp_path / "raw", model, "--image_size", "32", "--weights", "raw")
    np.testing.assert_array_equal([row["encoding"] for row in made.rows()], FAMILIES["llamagen"].codes)
    assert provenance(made)["weights"] == "raw"
    images = run("decode", "--input", f"{made.output}/data/*.parquet", *SMALL, output=tmp_path / "images")
    assert images.code == 0, images.err


def test_a_resumed_job_keeps_the_rule_and_the_size(tmp_path: Path) -> None:
    model, output = LLAMAGEN / "vq_ds2_small.pt", tmp_path / "out"
    words = (LLAMAGEN / "png", output, model)
    assert encode(*words, "--image_size", "32").code == 0
    assert encode(*words, "--image_size", "32", "--resize", "auto").code == 0
    for flags, told in (
        (("--image_size", "64"), "preprocessing.size: the folder has 32, this command asks for 64"),
        (("--image_size", "32", "--resize", "center_crop"), "preprocessing.resize: the folder has 'llamagen'"),
        (("--image_size", "32", "--icc", "srgb"), "preprocessing.icc: the folder has 'off'"),
    ):
        refused = encode(*words, *flags)
        assert (refused.code, told in refused.err) == (2, True), refused.err


def test_jpegs_at_reduced_scale_are_not_the_familys_own(tmp_path: Path) -> None:
    flags = ("--image_size", "32", "--jpeg_scale", "auto")
    encode(LLAMAGEN / "png", tmp_path / "out", LLAMAGEN, *flags).check_refused("--jpeg_scale", "decodes JPEGs in full")


def test_another_image_size_than_its_own(tiny_model: Path, tmp_path: Path) -> None:
    size = 32
    tokens = encode(CHAMELEON / "png", tmp_path / "tokens", tiny_model, "--image_size", size)
    assert {len(row["encoding"]) for row in tokens.rows()} == {(size // 2) ** 2}
    images = run("decode", "--input", f"{tokens.output}/data/*.parquet", *SMALL, output=tmp_path / "images")
    assert images.code == 0, images.err
    assert {Image.open(Path(images.output, row["image_path"])).size for row in images.rows()} == {(size, size)}
