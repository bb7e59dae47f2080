"""A row that ends the process which reads it costs its shard, not the job: one command does all other shards."""

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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SITE = """
import importlib.abc, importlib.util, os, signal, sys, time

def poisoned(real):
    def decode(data, *args, **options):
        if data in (b"poison", b"sleepy"):
            if data == b"sleepy" and "-c" in sys.orig_argv:
                time.sleep(1000)
            os.kill(os.getpid(), signal.SIGKILL)
        if data.startswith(b"slow"):
            with open({log!r}, "a") as file:
                print(os.getpid(), file=file)
            time.sleep(8)
            data = data[4:]
        return real(data, *args, **options)
    return decode

class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "transforms.images":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            module.decode_image = poisoned(module.decode_image)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Poison())
"""


def encode(tmp_path: Path, model: Path, cells: list[bytes], *flags: str) -> tuple[Path, subprocess.CompletedProcess]:
    """Encodes tables of two rows, the second of which holds the cell, in a process where some cells are poison."""
    source, output, site = tmp_path / "in", tmp_path / "out", tmp_path / "site"
    for folder in (source, site):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(log=str(tmp_path / "slow")))
    for number, cell in enumerate(cells):
        data = image_table([png(number), cell], key=[f"{number}a", f"{number}b"])
        (source / f"{number}.parquet").write_bytes(data)
    words = [
        "encode",
        "--input",
        source,
        "--model",
        model,
        "--output",
        output,
        "--rows_per_shard",
        2,
        "--batch_size",
        4,
    ]
    words += ["--batch_size", 4, "--threads_per_worker", 1, "--device", "cpu", "--temp_dir", tmp_path / "temp", *flags]
    command = [sys.executable, "-m", "pipelines", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return output, subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def marks(output: Path) -> list[str]:
    return sorted(path.stem for path in (output / "_vqbeam/stats").glob("*.json"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_command_does_all_but_the_shards_that_end_their_worker(
    tmp_path: Path, tiny_model: Path, workers: str
) -> None:
    cells = [png(9), b"poison", png(10)]
    output, done = encode(tmp_path, tiny_model, cells, "--workers", workers)
    assert done.returncode == 1, done.stderr
    assert "Beginning again" in done.stderr
    reason = "ended its worker 2 times, and in a process of its own ended with signal 9 (SIGKILL)"
    assert f"shard 00001: {reason}" in done.stdout
    assert "Traceback" not in done.stderr
    assert marks(output) == ["00000", "00002"]
    assert "shard 00001 is not done" in run("verify", output).out
    assert os.listdir(tmp_path / "temp") == []


def test_a_worker_that_is_well_finishes_its_shard_when_another_is_ended(tmp_path: Path, tiny_model: Path) -> None:
    cells = [b"slow" + png(9), b"poison"]
    output, done = encode(tmp_path, tiny_model, cells, "--workers", "2")
    assert done.returncode == 1, done.stderr
    assert "ended abruptly" in done.stderr
    assert marks(output) == ["00000"]
    assert len((tmp_path / "slow").read_text().splitlines()) == 1, "it was read once"


def test_a_shard_that_hangs_in_its_own_process_fails_after_the_deadline(tmp_path: Path, tiny_model: Path) -> None:
    output, done = encode(tmp_path, tiny_model, [png(9), b"sleepy"], "--shard_timeout", "15")
    assert done.returncode == 1, done.stderr
    assert "shard 00001: ended its worker 2 times" in done.stdout
    assert "took longer than 15 s, the --shard_timeout" in done.stdout + done.stderr
    assert marks(output) == ["00000"]
