"""`vqbeam evaluate`, end to end, with tokenizers and a CLIP of random weights."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from scipy.signal.windows import gaussian
from transformers import CLIPModel

import vqbeam
from examples.emoji.measures import psnr
from models.clip.pixels import read_clip_pixels
from tests.support.families import LLAMAGEN, write_transformers_chameleon
from tests.support.images import encoded, scene
from tests.support.paths import ROOT, SAMPLE
from tests.support.run_command import SMALL, Outcome, run
from tests.support.shard_runs import snapshot
from tests.transforms.outputs.test_cmmd import all_pairs
from tests.transforms.outputs.test_measures import plain_ssim
from transforms.ledger.folder import EVALUATION

ROWS = 11
BAD = 4  # of them, the row whose image is none
SIDE = 16  # of the images and of the model: they come to it as they are
GOOD = [row for row in range(ROWS) if row != BAD]
SHARDS = ("--rows_per_shard", "4")


def evaluate(source: Path, output: Path | str, *flags: object) -> Outcome:
    return run("evaluate", "--input", source, *SMALL, *flags, output=output)


def images() -> list[Image.Image]:
    return [scene(SIDE, SIDE).rotate(31 * row).point(lambda v, row=row: (v + 9 * row) % 256) for row in range(ROWS)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = [encoded(image, "PNG") for image in images()]
    files[BAD] = b"no image"
    table = {"key": [f"k{row}" for row in range(ROWS)], "image": files, "caption": ["c"] * ROWS, "seen": [*range(ROWS)]}
    path = tmp_path_factory.mktemp("in") / "images.parquet"
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path, tiny_clip: Path) -> Outcome:
    output = tmp_path_factory.mktemp("evaluated") / "out"
    outcome = evaluate(source, output, "--model", tiny_model, "--clip", tiny_clip, *SHARDS)
    assert outcome.code == 0, outcome.err
    return outcome


def told(outcome: Outcome) -> dict[str, Any]:
    return json.loads(outcome.read(EVALUATION))


def pixels(rows: list[int]) -> np.ndarray:
    every = images()
    return np.stack([np.asarray(every[row].convert("RGB")) for row in rows])


def clip_vectors(clip: Path, shown: np.ndarray) -> np.ndarray:
    """What transformers makes of images, without padding."""
    model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    prepare = read_clip_pixels(clip, model.config.vision_config.image_size)
    with torch.inference_mode():
        found = model.visual_projection(
            model.vision_model(
                pixel_values=torch.from_numpy(np.stack([prepare(image) for image in shown]))
            ).pooler_output
        ).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_rows_and_totals_are_those_of_independent_computations(one: Outcome, tiny_model: Path, tiny_clip: Path) -> None:
    tokenizer = vqbeam.load(str(tiny_model), device="cpu", threads=1, batch_size=4)
    originals = pixels(GOOD)
    codes = tokenizer.encode(originals)
    made = tokenizer.decode(codes)
    rows = one.rows()
    assert [row["key"] for row in rows] == [f"k{row}" for row in GOOD]
    assert [row["seen"] for row in rows] == GOOD
    np.testing.assert_array_equal([row["encoding"] for row in rows], codes)
    errors = np.square(originals.astype(float) - made.astype(float)).mean((1, 2, 3))
    noise = 10 * np.log10(255**2 / errors)
    similar = [plain_ssim(*both) for both in zip(originals, made, strict=True)]
    np.testing.assert_allclose([row["psnr"] for row in rows], noise, atol=1e-9)
    np.testing.assert_allclose([row["ssim"] for row in rows], similar, atol=1e-9)
    assert [row["codes_used"] for row in rows] == [len(set(row)) for row in codes.tolist()]
    first, second = clip_vectors(tiny_clip, originals), clip_vectors(tiny_clip, made)
    np.testing.assert_allclose([row["clip_cosine"] for row in rows], (first * second).sum(1), atol=1e-6)
    np.testing.assert_allclose([row["clip_reconstruction"] for row in rows], second, atol=1e-6)

    total = told(one)
    (model,) = total["models"]
    counts = np.bincount(codes.reshape(-1), minlength=32)
    shares = counts[counts > 0] / counts.sum()
    expected = {
        "psnr": noise.mean(),
        "ssim": np.mean(similar),
        "exact_rows": 0,
        "rows_without_ssim": 0,
        "codes_used": len(shares),
        "share_of_codes_used": len(shares) / 32,
        "perplexity": np.exp(-(shares * np.log(shares)).sum()),
        "clip_cosine": (first * second).sum(1).mean(),
    }
    assert {name: model[name] for name in expected} == pytest.approx(expected, abs=2e-6)
    assert model["cmmd"] == pytest.approx(all_pairs(first, second), abs=1e-4)
    assert (total["rows_read"], total["rows_written"], total["rows_rejected"]) == (ROWS, ROWS - 1, 1)
    assert (total["cmmd"]["rows"], total["cmmd"]["floor"]) == (ROWS - 1, 2.0)
    assert "arXiv:2401.09603" in total["cmmd"]["source"]
    assert (model["codebook_size"], model["image_size"], model["model"]) == (32, SIDE, "tiny")
    one.check_nothing_lost()


def test_the_totals_are_printed(one: Outcome) -> None:
    (model,) = told(one)["models"]
    printed = " ".join(one.out.split())
    assert f"PSNR {model['psnr']:.2f} dB SSIM {model['ssim']:.4f} codes used {model['codes_used']} of 32" in printed
    assert "CMMD of 10 rows: two samples of one distribution are about 2 apart" in printed


def without_plan(outcome: Outcome) -> dict[str, bytes]:
    return {
        name: data
        for name, data in snapshot(outcome.output).items()
        if "/plan.json" not in name and "/shards" not in name
    }


def test_a_run_that_goes_on_writes_the_same_bytes(
    one: Outcome, source: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    flags = (
        "--model",
        tiny_model,
        "--clip",
        tiny_clip,
        *SHARDS,
        "--direct_running_mode",
        "multi_threading",
        "--workers",
        "2",
    )
    assert evaluate(source, tmp_path / "out", *flags).code == 0
    for name in (EVALUATION, "_vqbeam/stats/00001.json", "data/00001.parquet"):
        (tmp_path / "out" / name).unlink()
    again = evaluate(source, tmp_path / "out", *flags)
    assert again.code == 0, again.err
    assert without_plan(again) == without_plan(one)
    assert run("verify", again.output).code == 0
    assert "evaluate, complete" in run("status", again.output).out


def test_verify_tells_totals_that_are_missing_damaged_or_of_other_tables(one: Outcome, tmp_path: Path) -> None:
    output = Path(shutil.copytree(one.output, tmp_path / "out"))
    stored = json.loads((output / EVALUATION).read_text())
    assert run("verify", output).code == 0
    stale, foreign, bare = (json.loads(json.dumps(stored)) for _ in range(3))
    stale["models"][0]["psnr"] += 0.01
    foreign["models"][0]["weights_id"] = "0" * 64
    del bare["clip"]
    for content, said in (
        (None, "is missing"),
        (b"{", "is damaged"),
        (json.dumps(bare).encode(), "is damaged"),
        (json.dumps(stale).encode(), "says other totals than the tables"),
        (json.dumps({**stored, "rows_read": 12}).encode(), "says other totals than the tables"),
        (json.dumps(foreign).encode(), "is of other models than this job"),
    ):
        (output / EVALUATION).unlink() if content is None else (output / EVALUATION).write_bytes(content)
        found = run("verify", output)
        assert (found.code, f"{EVALUATION} {said}: rerun the command of the job" in found.out) == (1, True), found.out


@pytest.mark.parametrize("flags", [("--rows_per_shard", "100"), ("--rows_per_shard", "3", "--batch_size", "3")])
def test_other_shards_and_batches_give_the_same_numbers(
    flags: tuple[str, ...], one: Outcome, source: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    other = evaluate(source, tmp_path / "out", "--model", tiny_model, "--clip", tiny_clip, *flags)
    assert other.code == 0, other.err
    assert other.rows() == one.rows()
    assert other.read(EVALUATION) == one.read(EVALUATION)


def test_two_models_are_measured_beside_each_other(
    one: Outcome, source: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """Each as by itself; what is said after a model is of that model."""
    llamagen = LLAMAGEN / "vq_ds2_small.pt"
    words = ("--model", llamagen, "--image_size", "32", "--clip", tiny_clip)
    both = evaluate(source, tmp_path / "both", "--model", tiny_model, *words)
    assert both.code == 0, both.err
    alone = evaluate(source, tmp_path / "alone", *words)
    rows = both.rows()
    for suffix, single in (("_1", one), ("_2", alone)):
        for row, by_itself in zip(rows, single.rows(), strict=True):
            measures = {
                name
                for name in by_itself
                if name not in ("key", "caption", "seen", "original_width", "original_height")
            }
            assert {name: row[name + suffix] for name in measures} == {name: by_itself[name] for name in measures}
    total = told(both)
    assert total["models"] == [*told(one)["models"], *told(alone)["models"]]
    assert {**total, "models": []} == {**told(alone), "models": []}
    assert both.out.splitlines()[-8].split() == ["tiny", "vq_ds2_small"]
    table = pq.read_schema(f"{both.output}/data/00000.parquet")
    said = json.loads(table.metadata[b"vqbeam"])["models"]
    assert [(model["model"], model["preprocessing"]["resize"]) for model in said] == [
        ("tiny", "center_crop"),
        ("vq_ds2_small", "llamagen"),
    ]


def test_without_an_output_folder_the_totals_are_printed_and_nothing_is_left(
    one: Outcome, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ("--model", tiny_model, "--temp_dir", tmp_path / "temp")
    outcome = evaluate(source, "", *flags)
    assert outcome.code == 0, outcome.err
    assert "removed: no --output" in outcome.out
    assert f"PSNR {told(one)['models'][0]['psnr']:.2f} dB" in " ".join(outcome.out.split())
    assert str(tmp_path) not in outcome.out
    assert list((tmp_path / "temp").iterdir()) == []
    for flag in ("--overwrite", "--extend", "--retry_rejected"):
        refused = evaluate(source, "", *flags, flag)
        assert (refused.code, f"{flag}: needs --output" in refused.err) == (2, True), refused.err
    far = evaluate(source, "", *flags, "--runner", "FlinkRunner")
    assert (far.code, "FlinkRunner needs --output" in far.err) == (2, True), far.err
    dry = evaluate(source, "", *flags, "--dry_run")
    assert (dry.code, "none: only totals are printed" in dry.out) == (0, True)


def test_images_too_small_for_a_window_have_no_similarity(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    outcome = evaluate(source, tmp_path / "out", "--model", tiny_model, "--image_size", "8")
    assert outcome.code == 0, outcome.err
    (model,) = told(outcome)["models"]
    assert (model["ssim"], model["rows_without_ssim"], model["psnr"] > 0) == (None, ROWS - 1, True)
    assert {row["ssim"] for row in outcome.rows()} == {None}
    assert "too small 10 rows" in " ".join(outcome.out.split())
    assert "clip_cosine" not in outcome.rows()[0]


def test_more_files_change_the_totals(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(source.read_bytes())
    words = (tmp_path / "in", tmp_path / "out", "--model", tiny_model)
    assert evaluate(*words).code == 0
    (tmp_path / "in" / "b.parquet").write_bytes(source.read_bytes())
    more = evaluate(*words, "--extend")
    assert more.code == 0, more.err
    assert (told(more)["rows_written"], told(more)["rows_rejected"]) == (2 * (ROWS - 1), 2)
    assert evaluate(*words, "--overwrite", "--limit", "2").code == 0
    assert told(more)["rows_written"] == 2


def test_tokens_of_one_model_are_tokens_like_any(one: Outcome, tiny_model: Path, tmp_path: Path) -> None:
    images = run("decode", "--input", f"{one.output}/data/*.parquet", "--model", tiny_model, *SMALL, output=tmp_path)
    assert images.code == 0, images.err
    shown = np.stack([np.asarray(Image.open(tmp_path / row["image_path"])) for row in images.rows()])
    error = np.square(shown.astype(float) - pixels(GOOD)).mean((1, 2, 3))
    np.testing.assert_allclose([row["psnr"] for row in one.rows()], 10 * np.log10(255**2 / error), atol=1e-9)


def test_other_options_are_another_job(one: Outcome, source: Path, tiny_model: Path, tiny_clip: Path) -> None:
    before = snapshot(one.output)
    clip = ("--clip", tiny_clip, *SHARDS)
    for flags, said in (
        (("--model", tiny_model, *SHARDS), "with_clip: the folder has True"),
        (("--model", tiny_model, "--model", tiny_model, *clip), "models: the folder has 1"),
        (("--model", tiny_model, "--image_size", "8", *clip), "preprocessing.size: the folder has 16"),
        (("--model", tiny_model, *clip, "--icc", "off"), "preprocessing.icc: the folder has 'srgb'"),
    ):
        refused = evaluate(source, one.output, *flags)
        assert (refused.code, said in refused.err) == (2, True), refused.err
    assert snapshot(one.output) == before


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    clash = tmp_path / "clash.parquet"
    pq.write_table(pq.read_table(source).append_column("psnr", pa.array([1.0] * ROWS)), clash)
    chameleon = write_transformers_chameleon(tmp_path / "chameleon")
    for table, flags, said in (
        (source, ("--model", tmp_path / "nowhere"), "no model"),
        (source, ("--model", tiny_model, "--model", tmp_path / "nowhere"), "no model"),
        (source, ("--model", tiny_model, "--clip", tiny_model), "no CLIP here"),
        (source, ("--model", tiny_model, "--model", chameleon), "holds an encoder only"),
        (source, ("--modle", tiny_model), "unknown flag --modle; did you mean --model"),
        (source, ("--model", tiny_model, "--model", LLAMAGEN / "vq_ds2_small.pt"), "image_size"),
        (clash, ("--model", tiny_model), "rename it (psnr=NAME)"),
    ):
        evaluate(table, tmp_path / "out", *flags).check_refused(said)


def test_encode_can_measure_what_it_writes(
    one: Outcome, source: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    words = ("encode", "--input", source, *SMALL, *SHARDS, "--model", tiny_model)
    clip = ("--clip", tiny_clip)
    measured = run(*words, "--evaluate", *clip, output=tmp_path / "measured")
    assert measured.code == 0, measured.err
    assert measured.rows() == one.rows()
    assert measured.read(EVALUATION) == one.read(EVALUATION)
    assert "PSNR" in measured.out
    plain = run(*words, output=tmp_path / "plain")
    assert [row["encoding"] for row in plain.rows()] == [row["encoding"] for row in measured.rows()]
    assert "evaluate" not in json.loads(plain.read("_vqbeam/plan.json"))["fingerprint"]
    for output, flags, said in (
        (measured.output, (), "evaluate: the folder has True"),
        (measured.output, ("--evaluate",), "with_clip: the folder has True"),
        (plain.output, ("--evaluate",), "evaluate: the folder has False"),
    ):
        refused = run(*words, *flags, output=output)
        assert (refused.code, said in refused.err) == (2, True), refused.err
    for flags, said in (
        (clip, "--clip is of --evaluate"),
        (("--evaluate", "--views", "flip"), "leave --views out"),
        (("--evaluate", "--resize", "area:256"), "leave out what gives grids that differ by row"),
        (("--evaluate", "--buckets", "16x16"), "leave out what gives grids that differ by row"),
    ):
        run(*words, *flags, output=tmp_path / "none").check_refused(said)


def test_the_embedded_model_on_the_sample(tmp_path: Path) -> None:
    """Against scipy's convolution, the PSNR of the model's own measures, and its CLIP by transformers."""
    outcome = evaluate(SAMPLE / "emoji-00000.tar", tmp_path / "out", "--clip", "emoji", "--limit", "8")
    assert outcome.code == 0, outcome.err
    with tarfile.open(SAMPLE / "emoji-00000.tar") as tar:
        files = {name.rpartition(".")[0]: tar.extractfile(name) for name in tar.getnames() if name.endswith(".png")}
        keys = [row["key"] for row in outcome.rows()]
        originals = np.stack([np.asarray(Image.open(files[key]).convert("RGB")) for key in keys])
    tokenizer = vqbeam.load("emoji", device="cpu", threads=1, batch_size=4)
    codes = np.concatenate([tokenizer.encode(originals[start : start + 4]) for start in (0, 4)])
    made = np.concatenate([tokenizer.decode(codes[start : start + 4]) for start in (0, 4)])
    line = gaussian(11, 1.5)
    window = np.outer(line, line) / line.sum() ** 2

    def blurred(image: np.ndarray) -> np.ndarray:
        return np.stack([convolve2d(image[..., channel], window, "valid") for channel in range(3)])

    similar = []
    for x, y in zip(originals.astype(float), made.astype(float), strict=True):
        mx, my, xx, yy, xy = map(blurred, (x, y, x * x, y * y, x * y))
        first = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
        similar.append((first * (2 * (xy - mx * my) + 58.5225) / (xx - mx**2 + yy - my**2 + 58.5225)).mean())
    seen, shown = (clip_vectors(ROOT / "models" / "emoji" / "clip", images) for images in (originals, made))
    (model,) = told(outcome)["models"]
    found = {name: model[name] for name in ("psnr", "ssim", "codes_used", "clip_cosine")}
    expected = [psnr(originals, made).mean(), np.mean(similar), len(np.unique(codes)), (seen * shown).sum(1).mean()]
    assert found == pytest.approx(dict(zip(found, expected, strict=True)), abs=2e-6)
    assert model["cmmd"] == pytest.approx(all_pairs(seen, shown), abs=1e-4)
