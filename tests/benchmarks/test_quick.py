"""Every benchmark runs from start to end; the tests ignore its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.memory import QUICK, every_case
from benchmarks.support.gpu_parts import Part, Row, Setting
from pipelines.__main__ import main
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # without a unit for bfloat16 some take minutes
needs_min_dalle = pytest.mark.skipif(  # importing it here would turn gradients off for others
    find_spec("min_dalle") is None, reason="min-dalle is not installed"
)


def _quick(module: str, *flags: str) -> str:
    """What a benchmark prints, on one thread, so that tests that run beside it do not make it wait."""
    command = [sys.executable, "-m", module, "--quick", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_encode_compares_the_model_the_pipeline_and_the_peer() -> None:
    pytest.importorskip("diffusers")
    shown = _quick("benchmarks.encode")
    for what in ("diffusers", "model", "pipeline"):
        assert f"| {what} | float32 | 8 |" in shown
    assert "100.00% of the float32 codes are equal" in shown


def test_encode_compares_a_family_with_its_original() -> None:
    shown = _quick("benchmarks.encode", "--family", "chameleon", "--dtypes", "float32")
    assert "| transformers | float32 | 8 |" in shown
    assert "in transformers, the same values; 100.00% of the float32 codes are equal" in shown


def test_encode_measures_a_family_whose_original_is_no_package() -> None:
    shown = _quick("benchmarks.encode", "--family", "emu3", "--image_size", "16", "--dtypes", "float32")
    assert ("| model | float32 | 8 |" in shown, "the same values" in shown) == (True, False)


@needs_min_dalle
def test_decode_compares_the_decoder_with_two_peers_of_the_same_weights() -> None:
    pytest.importorskip("diffusers")
    shown = _quick("benchmarks.decode", "--dtypes", "float32")  # a processor without a unit takes long for bfloat16
    for what in ("diffusers", "min-dalle", "model"):
        assert f"| {what} | float32 | 1 |" in shown
    assert "have 46,709,891 weights in each, the same values" in shown


@needs_min_dalle
def test_generate_compares_our_shapes_with_the_peer() -> None:
    shown = _quick("benchmarks.generate")
    for what in ("min-dalle | float32 |  | 9 of one prompt", "vqbeam | bfloat16 | torch | 32 of as many prompts"):
        assert f"| {what} |" in shown
    assert "| 1 of one prompt, bfloat16 / 1 of one prompt |" in shown


def test_memory_shows_the_cases_that_are_asked_for_at_both_sizes() -> None:
    shown = _quick("benchmarks.memory", "--only", "one row group")
    rows = [line for line in shown.splitlines() if line.count("|") == 5][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| encode, Parquet, one row group, one shard"]


def test_every_case_of_memory_can_be_planned(tmp_path: Path) -> None:
    cases = every_case(tmp_path, QUICK)
    assert {case.name.partition(",")[0] for case in cases} == {"encode", "decode", "generate", "rank", "vary"}
    for case in cases:
        for source in case.inputs:
            assert main([*case.command(source, tmp_path / "out"), "--dry_run"]) == 0, case.name


def test_the_whole_of_generate_is_compared_with_its_bare_models() -> None:
    shown = _quick("benchmarks.generate_pipeline")
    assert "| tiny | float32 | 4 | 8 |" in shown
    assert "| tiny | bfloat16 | 4 | 8 |" in shown


def test_images_drawn_again_are_the_same() -> None:
    assert "| again, as before | 0.00% | 0 of 40 | 0.00%, 0 of 255 |" in _quick("benchmarks.same_images")


def test_variations_have_a_row_for_each_method_and_input() -> None:
    rows = [line for line in _quick("benchmarks.variations").splitlines() if line.count(" dB") == 4]
    assert [row.split(" | ")[0] for row in rows] == ["| `latent`, images", "| `latent`, tokens", "| `codes`"]


def test_products_are_measured_in_each_layout() -> None:
    pytest.importorskip("numba")
    from benchmarks.products import layouts

    rows = [line.split("|")[1:3] for line in _quick("benchmarks.products").splitlines() if line.count("|") == 8]
    assert rows[2:] == [[f" {n} ", f" {layout} "] for n in (2, 4, 18, 64) for layout in layouts(torch.bfloat16)]


def test_the_distance_of_reduced_precision_grows_from_float32_to_int8() -> None:
    shown = _quick("benchmarks.sampling_distance").splitlines()
    rows = [line for line in shown if "compiled" in line and "matrix unit" not in line and "panels" not in line]
    moved = [float(line.split("|")[2].split("%")[0]) for line in rows]
    assert [line.split("|")[1].split(",")[0].strip() for line in rows] == ["float32", "bfloat16", "int8"]
    assert moved == sorted(moved)
    assert moved[0] < moved[-1]


def test_planning_is_measured_in_each_way() -> None:
    lines = _quick("benchmarks.planning", "--only", "bucket").splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| a ")]
    assert rows == [f"a bucket, {way}" for way in ("--extend", "again after that", "--dry_run", "new plan", "again")]


def test_what_is_told_of_the_time_is_compared_with_what_jobs_take() -> None:
    rows = [line.split("|")[1].strip() for line in _quick("benchmarks.estimates").splitlines() if "embedded" in line]
    assert rows == [f"{command}, embedded model" for command in ("encode", "decode", "generate")]


def test_marks_of_many_shards_are_seldom_read() -> None:
    """A tenth of the shards was done by the run that ends: each mark was read twice then, before there were digests."""
    found = [line for line in _quick("benchmarks.scale", "--percent", "90").splitlines() if line.startswith("| 3,000")]
    (_, row) = found
    requests = int(row.split("|")[4].replace(",", ""))
    assert requests < 3_000 / 50


def test_the_image_path_is_measured_beside_another_version_and_other_resizers() -> None:
    shown = _quick("benchmarks.image_path", "--against", str(ROOT))
    for what in ("JPEG 450 x 450 | there", "JPEG 512 x 384 | here", "450 x 450 | Pillow", "512 x 384 | torch, float32"):
        assert f"| {what}" in shown
    same = [line for line in shown.splitlines() if "machine code" in line]
    assert all("| equal | 0 | 0.00% |" in line for line in same)


def test_starting_measures_a_job_and_a_refusal() -> None:
    (row,) = (line for line in _quick("benchmarks.starting").splitlines() if line.startswith("| here "))
    line, shard, whole, model, refused, *_ = map(float, row.split("|")[2:-1])
    assert 0 < line < whole
    assert 0 < model < shard < whole
    assert 0 < refused < whole


def test_the_check_of_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    shown = _quick("benchmarks.gpu_check", "--device", "cpu", "--output", str(tmp_path))
    assert shown.strip() == (tmp_path / "gpu_check.md").read_text(encoding="utf-8").strip()
    parts = {part["part"]: part["state"] for part in json.loads((tmp_path / "gpu_check.json").read_text())["parts"]}
    absent = {name for name, state in parts.items() if state == "absent"}
    assert {"graphs", "oom"} <= absent <= {"graphs", "oom", "diffusers", "min_dalle"}
    assert {parts[name] for name in parts.keys() - absent} == {"ok"}


def test_a_part_that_fails_or_lasts_is_told_and_the_next_one_runs(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(setting: Setting) -> Iterator[Row]:
        yield Row("before", 1, "s")
        raise RuntimeError("it broke")

    def endless(setting: Setting) -> Iterator[Row]:
        yield Row("before", 1, "s")
        time.sleep(600)

    parts = [Part("broken", broken, 60), Part("endless", endless, 0.5), Part("fine", lambda setting: (), 60)]
    results = list(gpu_check.results(parts, Setting("cpu", False), time.monotonic() + 100))
    assert [(one.state, len(one.rows)) for one in results] == [("failed", 1), ("cut off", 1), ("ok", 0)]
    assert "| broken | failed |" in gpu_check.report("", results)
    assert "it broke" in capfd.readouterr().err


def test_colour_profiles() -> None:
    rows = [line.split("|")[2].strip() for line in _quick("benchmarks.colour_profiles").splitlines() if "|" in line]
    assert rows[2:] == ["none", "sRGB", "Display P3"] * 2


def test_steps_of_drawing_are_compared_with_another_checkout() -> None:
    pytest.importorskip("numba")
    shown = _quick("benchmarks.drawing_steps", "--rounds", "1", "--here", "int8:9", "--there", "float32:9")
    (row,) = (line.split(" | ") for line in shown.splitlines() if line.startswith("| 9 "))
    assert (row[1], row[3]) == ("float32", "int8")
    assert min(float(row[2]), float(row[4])) > 0
