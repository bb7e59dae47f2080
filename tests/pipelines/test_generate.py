"""`vqbeam generate` from end to end on a model of random weights: what it writes, counts and says."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from PIL import Image

from models.vqgan.checkpoint import open_checkpoint
from tests.support.run_command import Outcome, run
from tests.support.tiny_clip import open_clip
from tests.support.tiny_generator import CODES, SIDE, generate, write_prompts
from transforms.outputs.image_files import encode_image

PROMPTS: list[dict[str, Any]] = [
    {"key": "Fruit/1", "prompt": "a red apple", "kind": "fruit", "n": 1},
    {"key": "b", "prompt": "blue rocket, naïve ☕", "kind": None, "n": 2},
    {"key": "none", "prompt": " ", "kind": "blank", "n": 3},
    {"key": "d", "prompt": "rocket on background", "kind": "space", "n": 4},
]
COLUMNS = ["key", "prompt", "sample", "seed", "image_path", "width", "height", "kind", "n"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("in") / "prompts.jsonl", PROMPTS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path, prompts: Path) -> Outcome:
    """Two images a prompt with their codes, in two shards; one prompt of the four is rejected."""
    flags = ("--images_per_prompt", 2, "--keep_tokens", "--rows_per_shard", 2, "--contact_sheet")
    outcome = generate(tiny_generator, tmp_path_factory.mktemp("plain") / "out", "--input", prompts, *flags)
    assert outcome.code == 0, outcome.err
    return outcome


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_row_an_image_with_what_came_along(plain: Outcome) -> None:
    rows = plain.rows()
    assert list(rows[0]) == [*COLUMNS[:4], "encoding", *COLUMNS[4:]]
    assert [(row["key"], row["sample"]) for row in rows] == [(key, n) for key in ("Fruit/1", "b", "d") for n in (0, 1)]
    assert [row["n"] for row in rows] == [1, 1, 2, 2, 4, 4]
    assert rows[2]["prompt"] == "blue rocket, naïve ☕"
    assert {(row["seed"], row["width"], row["height"], len(row["encoding"])) for row in rows} == {
        (0, SIDE, SIDE, CODES)
    }
    assert len({tuple(row["encoding"]) for row in rows}) == 6, "no two images are the same"


def test_every_image_asked_for_is_counted(plain: Outcome) -> None:
    plain.check_nothing_lost()
    assert [plain.total(name) for name in ("rows_read", "rows_written", "rows_rejected")] == [8, 6, 2]
    assert [(row["key"], row["error"], row["stage"]) for row in plain.rejected()] == [
        ("none", "empty_prompt", "read")
    ] * 2
    assert "images     8 read = 6 written + 2 rejected + 0 filtered" in plain.out
    assert run("verify", plain.output).code == 0


def test_a_png_tells_its_making(plain: Outcome) -> None:
    row = plain.rows()[3]
    image = Image.open(io.BytesIO(plain.read(row["image_path"])))
    assert image.size == (SIDE, SIDE)
    assert image.info == {
        "prompt": "blue rocket, naïve ☕",
        "seed": "0",
        "sample": "1",
        "key": "b",
        "model": "tiny",
    } | {
        "guidance_scale": "10.0",
        "temperature": "1.0",
        "top_k": "50",
        "top_p": "1.0",
    }
    assert row["image_path"] == "images/00000/0000001-b_1.png"


def test_the_table_says_what_made_it(plain: Outcome, tiny_generator: Path) -> None:
    schema = pa.parquet.read_schema(plain.output + "/data/00000.parquet")
    said = json.loads(schema.metadata[b"vqbeam"])
    assert said["command"] == "generate"
    assert {role: model["name"] for role, model in said["models"].items()} == {"bart": "tiny", "vqgan": "tiny-vqgan"}
    assert said["weights_id"] == open_checkpoint(tiny_generator / "vqgan").weights_id()
    assert said["uniforms_version"] == 1
    assert said["drawing"]["top_k"] == 50
    assert len(said["codebook_id"]) == 64
    assert schema.field("encoding").type == pa.list_(pa.uint16(), CODES)
    assert [str(schema.field(name).type) for name in ("sample", "seed", "width", "height")] == ["int32", "int64"] + [
        "int32"
    ] * 2


def test_tokens_decode_to_the_same_images(plain: Outcome, tmp_path: Path) -> None:
    """From the whole folder, with the images in it."""
    decoded = run("decode", "--input", plain.output, "--batch_size", "4", output=tmp_path / "out")
    assert decoded.code == 0, decoded.err
    assert "the input's are kept, image_path as input_image_path (" in decoded.err
    for one, other in zip(plain.rows(), decoded.rows(), strict=True):
        assert (pixels(plain.read(one["image_path"])) == pixels(decoded.read(other["image_path"]))).all()
        assert [other[name] for name in ("caption", "input_image_path")] == [one["prompt"], one["image_path"]]
        assert other["image_path"].endswith(f"_{one['sample']}.png")
        assert [other[name] for name in COLUMNS[-4:]] == [one[name] for name in COLUMNS[-4:]]


def test_the_output_reads_as_one_dataset_after_rejections(plain: Outcome) -> None:
    folder = f"{plain.output}/data"
    keys = ["Fruit/1", "Fruit/1", "b", "b", "d", "d"]
    assert pd.read_parquet(folder)["key"].tolist() == keys
    assert ds.dataset(folder).to_table()["key"].to_pylist() == keys
    assert duckdb.sql(f"select key from '{folder}/*.parquet' order by key, sample").fetchall() == [
        (key,) for key in keys
    ]


def test_hugging_face_datasets_reads_the_output_after_rejections(plain: Outcome, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    folder = f"{plain.output}/data"
    loaded = datasets.load_dataset("parquet", data_dir=folder, cache_dir=str(tmp_path), split="train")
    assert loaded["key"][:] == ["Fruit/1", "Fruit/1", "b", "b", "d", "d"]


def test_a_contact_sheet_shows_the_images(plain: Outcome) -> None:
    sheet = Image.open(io.BytesIO(plain.read("contact_sheet.png")))
    assert sheet.width > 2 * 128
    assert f"{plain.output}/contact_sheet.png" in plain.out


@pytest.mark.parametrize(("layout", "image_format"), [("files", "webp"), ("webdataset", "png"), ("parquet", "jpeg")])
def test_images_are_the_same_in_every_layout(
    plain: Outcome, tiny_generator: Path, prompts: Path, tmp_path: Path, layout: str, image_format: str
) -> None:
    flags = ("--images_per_prompt", 2, "--image_layout", layout, "--image_format", image_format, "--contact_sheet")
    outcome = generate(tiny_generator, tmp_path / "out", "--input", prompts, *flags)
    assert outcome.code == 0, outcome.err
    outcome.check_nothing_lost()
    found: list[bytes] = []
    if layout == "webdataset":
        with tarfile.open(fileobj=io.BytesIO(outcome.read("tars/00000.tar"))) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        found = [data for name, data in contents.items() if name.endswith(".png")]
        rows = [json.loads(data) for name, data in contents.items() if name.endswith(".json")]
        assert [row["sample"] for row in rows] == [0, 1] * 3
    else:
        rows = outcome.rows()
        found = [row["image"]["bytes"] if layout == "parquet" else outcome.read(row["image_path"]) for row in rows]
    exact = [pixels(plain.read(row["image_path"])) for row in plain.rows()]
    for data, expected in zip(found, exact, strict=True):
        assert Image.open(io.BytesIO(data)).format == image_format.upper()
        if image_format == "png":
            assert (pixels(data) == expected).all()
        else:
            assert data == encode_image(expected, image_format)
    assert outcome.read("contact_sheet.png").startswith(b"\x89PNG")


def test_rows_may_say_how_they_are_drawn(plain: Outcome, tiny_generator: Path, tmp_path: Path) -> None:
    base: dict[str, Any] = {"key": "b", "prompt": "blue rocket, naïve ☕"}
    settings: list[dict[str, Any]] = [
        {},
        {"seed": 7},
        {"temperature": 9},
        {"top_k": 1},
        {"top_p": 0.9},
        {"guidance_scale": -3},
        {"images": 1},
    ]
    source = write_prompts(tmp_path / "rows.jsonl", [base | setting for setting in settings])
    outcome = generate(tiny_generator, tmp_path / "out", "--input", source, "--images_per_prompt", 2, "--keep_tokens")
    assert outcome.code == 0, outcome.err
    rows = outcome.rows()
    assert len(rows) == outcome.total("rows_read") == 13
    assert [row["seed"] for row in rows[1:4]] == [0, 7, 7]
    codes = [row["encoding"] for row in rows]
    assert codes[:2] == [row["encoding"] for row in plain.rows()[2:4]]
    assert codes[12] == codes[0]
    assert len({tuple(code) for code in codes[::2]}) == 6
    assert codes[6] == codes[7], "with top_k 1 there is no chance"


def test_a_sweep_says_of_each_image_what_drew_it(tiny_generator: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "apple", "top_k": 1, "Temperature": 0.5}, {"prompt": "apple", "top_k": 9}]
    source = write_prompts(tmp_path / "rows.jsonl", rows)
    outcome = generate(tiny_generator, tmp_path / "out", "--input", source)
    assert outcome.code == 0, outcome.err
    schema = pa.parquet.read_schema(outcome.output + "/data/00000.parquet")
    assert schema.names == [*COLUMNS[:4], "temperature", "top_k", *COLUMNS[4:7]]
    assert [str(schema.field(name).type) for name in ("temperature", "top_k")] == ["double", "int32"]
    assert [(row["temperature"], row["top_k"]) for row in outcome.rows()] == [(0.5, 1), (1, 9)]
    told = [Image.open(io.BytesIO(outcome.read(row["image_path"]))).info for row in outcome.rows()]
    assert [(info["temperature"], info["top_k"]) for info in told] == [("0.5", "1"), ("1.0", "9")]


def test_bad_rows_are_rejected_once_for_each_of_their_images(tiny_generator: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "good"},
        {"prompt": "a", "guidance_scale": "nan"},
        {"prompt": "a", "guidance_scale": 1e300},
        {"prompt": "a", "temperature": 0},
        {"prompt": "a", "temperature": -1},
        {"prompt": "a", "top_k": -1},
        {"prompt": "a", "top_p": 1.5},
        {"prompt": "a", "seed": -1},
        {"prompt": "a", "seed": 1 << 63},
        {"prompt": "a", "images": 0},
        {"prompt": "a", "images": 2.5},
        {"prompt": "x" * (1 << 20)},
        {"prompt": "???", "images": 3},
        {"prompt": "\u0000\u0007\u200b"},
        {"prompt": None},
    ]
    source = write_prompts(tmp_path / "rows.jsonl", rows)
    outcome = generate(tiny_generator, tmp_path / "out", "--input", source, "--images_per_prompt", 2)
    assert outcome.code == 0, outcome.err
    outcome.check_nothing_lost()
    assert outcome.by_reason("errors") == {"bad_value": 20, "prompt_too_long": 2, "empty_prompt": 7}
    assert outcome.total("rows_written") == 2
    messages = [row["message"] for row in outcome.rejected() if row["error"] == "empty_prompt"]
    assert messages[0] == "the model's normaliser leaves nothing of the prompt '???'"
    assert messages[-1] == "the prompt is empty or blank: nothing to draw"


def test_prompts_that_are_cut_are_noticed(tiny_generator: Path, tmp_path: Path) -> None:
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "a", "word " * 50, "x\ty " * 40)
    assert outcome.code == 0, outcome.err
    assert outcome.by_reason("notices") == {"a prompt is longer than the model reads and was cut": 2}
    assert "notice     a prompt is longer than the model reads and was cut (2 times)" in outcome.out


def test_all_prompts_of_a_batch_may_be_bad(tiny_generator: Path, tmp_path: Path) -> None:
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "", " ")
    assert outcome.code == 1
    assert "nothing was written" in outcome.out
    outcome.check_nothing_lost()


def test_a_prompt_may_have_more_images_than_a_batch(tiny_generator: Path, tmp_path: Path) -> None:
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "a", "b", "--images_per_prompt", 9)
    assert outcome.code == 0, outcome.err
    assert [row["sample"] for row in outcome.rows()] == [*range(9)] * 2
    assert len({outcome.read(path) for path in outcome.files("images/*/*.png")}) == 18


def test_the_best_by_clip_are_kept(tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--prompt", "red apple", "blue rocket", "--images_per_prompt", 6, "--clip", tiny_generator)
    everything = generate(tiny_generator, tmp_path / "all", *words)
    best = generate(tiny_generator, tmp_path / "best", *words, "--keep_best", 2)
    assert (everything.code, best.code) == (0, 0)
    best.check_nothing_lost()
    assert best.by_reason("filters") == {"not_best": 8}
    rows = everything.rows()
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6] * 2
    for first, second in pairwise(rows):
        assert first["key"] != second["key"] or first["clip_score"] >= second["clip_score"]
    kept = [(row["key"], row["sample"], row["rank"], row["clip_score"]) for row in rows if row["rank"] <= 2]
    assert [(row["key"], row["sample"], row["rank"], row["clip_score"]) for row in best.rows()] == kept
    assert len(best.files("images/*/*.png")) == 4
    scorer = open_clip(tiny_generator / "clip", threads=1)
    images = np.stack([scorer.preprocess(pixels(everything.read(row["image_path"]))) for row in rows])
    expected = scorer.scores(images, [row["prompt"] for row in rows])
    assert np.abs(expected - [row["clip_score"] for row in rows]).max() < 1e-5


def test_the_best_are_kept_of_as_many_as_a_row_asks_for(tiny_generator: Path, tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "a.jsonl", [{"prompt": "red apple", "images": 3}, {"prompt": "blue rocket"}])
    words = ("--input", source, "--clip", tiny_generator, "--keep_best", 2)
    outcome = generate(tiny_generator, tmp_path / "out", *words)
    assert outcome.code == 0, outcome.err
    outcome.check_nothing_lost()
    assert [row["rank"] for row in outcome.rows()] == [1, 2, 1]


def test_another_resumption_is_refused_with_what_differs(plain: Outcome, tiny_generator: Path, prompts: Path) -> None:
    words = ("--input", prompts, "--images_per_prompt", 2, "--keep_tokens", "--rows_per_shard", 2)
    assert generate(tiny_generator, plain.output, *words).code == 0, "the same job resumes, and has nothing to do"
    for flags, differs in (
        (("--guidance_scale", 3), "drawing.guidance_scale"),
        (("--seed", 1), "drawing.seed"),
        (("--key_from", "prompt"), "input.key_from"),
        (("--clip", tiny_generator), "clip"),
    ):
        again = generate(tiny_generator, plain.output, *words, *flags)
        assert again.code == 2
        assert differs in again.err


def test_other_texts_of_the_command_line_are_told_in_words(tiny_generator: Path, prompts: Path, tmp_path: Path) -> None:
    assert generate(tiny_generator, tmp_path / "out", "--prompt", "a cat").code == 0
    other = generate(tiny_generator, tmp_path / "out", "--prompt", "a dog")
    files = generate(tiny_generator, tmp_path / "out", "--input", prompts)
    assert (other.code, files.code) == (2, 2)
    assert "prompt: other texts\n" in other.err
    assert "prompts: the folder has texts given as prompt, not files\n" in files.err


def test_what_reads_the_prompt_is_part_of_the_job(plain: Outcome, tiny_generator: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_generator, folder)
    assert generate(folder, tmp_path / "out", "--prompt", "a").code == 0
    said = json.loads(pa.parquet.read_schema(tmp_path / "out/data/00000.parquet").metadata[b"vqbeam"])
    assert said["models"]["bart"]["normalizers"].keys() == {"ftfy", "unidecode", "emoji"}
    config = folder / "dalle_bart" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"normalize_text": False}))
    again = generate(folder, tmp_path / "out", "--prompt", "a")
    assert again.code == 2
    assert "bart" in again.err


def test_the_plan_is_shown_and_nothing_done(tiny_generator: Path, tmp_path: Path) -> None:
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "a", "b", "--dry_run", "--clip", tiny_generator)
    assert outcome.code == 0, outcome.err
    for part in ("bart        tiny", "vqgan       tiny-vqgan", "clip        clip", "prompts     2", "images      2"):
        assert part in outcome.out
    assert not (tmp_path / "out").exists()


def test_the_plan_tells_prompts_from_images(tiny_generator: Path, tmp_path: Path) -> None:
    shown = generate(tiny_generator, tmp_path / "out", "--prompt", "x", "--images_per_prompt", 9, "--dry_run")
    for part in ("prompts     1\n", "images      9\n", "shards      1 of at most", "(1 prompt)"):
        assert part in shown.out
    own = write_prompts(tmp_path / "own.jsonl", [{"prompt": "x", "images": 3}])
    shown = generate(tiny_generator, tmp_path / "out", "--input", own, "--dry_run")
    assert "images      as the column images says, else 1 a prompt" in shown.out


def test_a_batch_is_no_larger_than_the_job(tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--prompt", "a", "b", "c", "--images_per_prompt", "2", "--dry_run", "--device", "cpu")
    outcome = run("generate", "--model", tiny_generator, *words, output=tmp_path / "out")
    assert "batch 8" in outcome.out


def test_a_model_brings_its_own_defaults_and_flags_override_them(tiny_generator: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for part in ("dalle_bart", "vqgan"):
        (folder / part).mkdir(parents=True)
        for file in (tiny_generator / part).iterdir():
            (folder / part / file.name).write_bytes(file.read_bytes())
    config = folder / "dalle_bart" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"generation": {"guidance_scale": 4, "top_k": 8}}))
    outcome = generate(folder, tmp_path / "out", "--prompt", "a", "--top_k", 3)
    assert outcome.code == 0, outcome.err
    drawing = json.loads(outcome.read("_vqbeam/plan.json"))["fingerprint"]["drawing"]
    assert (drawing["guidance_scale"], drawing["top_k"], drawing["temperature"]) == (4, 3, 1)
