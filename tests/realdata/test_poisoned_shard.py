"""A row that ends the process which reads it costs its shard, not the job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.make_inputs import image_table
from tests.support.paths import ROOT
from tests.support.run_command import run
from tests.support.small_jobs import png

POISON = b"poison"
SITE = """
import os, signal
import transforms.work.prepare as prepare
import transforms.images as images
real = images.decode_image
def decode(data, *args, **options):
    if data == b"poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(data, *args, **options)
for module in (images, prepare):
    if hasattr(module, "decode_image"):
        module.decode_image = decode
"""
MAIN = """
import sys
sys.path.insert(0, {site!r})
import poison
from pipelines.__main__ import main
sys.exit(main({words!r}))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_shard_that_ends_its_worker_is_named_and_the_others_are_done(tmp_path: Path, tiny_model: Path) -> None:
    source, output, site = tmp_path / "in", tmp_path / "out", tmp_path / "site"
    source.mkdir()
    site.mkdir()
    (site / "poison.py").write_text(SITE)
    for number in range(4):
        cells = [png(number), POISON if number == 1 else png(number + 9)]
        (source / f"{number}.parquet").write_bytes(image_table(cells, key=[f"{number}a", f"{number}b"]))
    words = ["encode", "--input", str(source), "--model", str(tiny_model), "--output", str(output)]
    words += ["--rows_per_shard", "2", "--batch_size", "4", "--threads_per_worker", "1", "--device", "cpu"]
    code = MAIN.format(site=str(site), words=words)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    (site / "sitecustomize.py").write_text("import sys\nif '-c' in sys.orig_argv: import poison\n")
    done = []
    for _ in range(4):
        done.append(
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        )
        if done[-1].returncode >= 0:
            break
    assert [one.returncode for one in done] == [-9, -9, 1], done[-1].stderr
    assert "shard 00001 ended its worker 2 times" in done[-1].stdout
    assert "signal 9 (SIGKILL)" in done[-1].stdout
    marks = sorted(path.stem for path in (output / "_vqbeam/stats").glob("*.json"))
    assert marks == ["00000", "00002", "00003"]
    assert "shard 00001 is not done" in run("verify", output).out
