"""Whole jobs on a GPU, beside those on a CPU; skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT, SAMPLE
from tests.support.run_command import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("command", ["encode", "decode", "generate", "rank", "vary"])
def test_a_job_gives_the_same_bytes_again(command: str, tmp_path: Path) -> None:
    """And nearly the rows of a CPU; float32, so that codes can be compared."""
    sample = SAMPLE / "emoji-00000.tar"
    tokens = tmp_path / "tokens"
    flags = ["--dtype", "float32", "--model", "emoji", "--rows_per_shard", "64"]
    assert run("encode", "--input", sample, "--limit", 100, "--device", "cuda", *flags, output=tokens).code == 0
    inputs = {
        "encode": ("--input", sample, "--limit", 100),
        "decode": ("--input", f"{tokens}/data/*.parquet"),
        "generate": (
            "--input",
            ROOT / "examples" / "emoji" / "prompts.txt",
            "--clip",
            "emoji",
            "--images_per_prompt",
            2,
        ),
        "rank": ("--input", sample, "--limit", 100, "--clip", "emoji"),
        "vary": ("--input", sample, "--limit", 20),
    }[command]
    if command == "rank":
        flags = flags[4:]
    jobs = [
        run(command, *inputs, "--device", device, *flags, output=tmp_path / name)
        for name, device in (("one", "cuda"), ("two", "cuda"), ("cpu", "cpu"))
    ]
    for job in jobs:
        assert job.code == 0, job.err
        job.check_nothing_lost()
    one, two, cpu = (job.rows() for job in jobs)
    assert one == two
    assert len(one) == len(cpu)
    for mine, other in zip(one, cpu, strict=True):
        assert {**mine, "clip_score": None} == {**other, "clip_score": None}
        if "clip_score" in mine:
            assert mine["clip_score"] == pytest.approx(other["clip_score"], abs=1e-4)
