"""`vqbeam convert` killed at any point: the same command then writes what it would have written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.vqgan.checkpoint import save_vqgan
from tests.pipelines.test_convert_bart import PAIRED, write_bart
from tests.support.paths import ROOT
from tests.support.vqgan_checkpoints import GOLDEN_VQGAN, random_vqgan

SCRIPT = """
import os, shutil, sys
from pathlib import Path
import models.bart.checkpoint, models.vqgan.checkpoint, models.weights.native, safetensors.torch
from pipelines.__main__ import main

source, folder = sys.argv[1], Path(sys.argv[2])

def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}

def forked(run):
    pid = os.fork()
    if not pid:
        try:
            os._exit(run())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed(number, target):
    steps = 0
    for module, name in ((os, "replace"), (os, "fsync"), (safetensors.torch, "save_file"), (Path, "touch"),
                         (Path, "unlink")):
        def counted(*args, real=getattr(module, name), **options):
            nonlocal steps
            steps += 1
            if steps == number:
                os._exit(9)
            return real(*args, **options)
        setattr(module, name, counted)
    return main(["convert", source, target])

assert forked(lambda: main(["convert", source, str(folder / "whole")])) == 0
expected = content(folder / "whole")
number = 1
while True:
    target = str(folder / f"cut{number}")
    code = forked(lambda: killed(number, target))
    if code == 0:
        break
    assert code == 9, code
    if content(Path(target)) != expected:
        assert forked(lambda: main(["convert", source, target])) == 0, f"step {number}"
    assert content(Path(target)) == expected, f"step {number}"
    number += 1
print(number - 1, "kills")
"""


@pytest.mark.parametrize(("kind", "least"), [("vqgan", 5), ("pair", 14)])
def test_the_same_command_ends_what_was_cut_off(kind: str, least: int, tmp_path: Path) -> None:
    source = GOLDEN_VQGAN
    if kind == "pair":
        source = tmp_path / "source"
        write_bart(source / "dalle_bart", PAIRED)
        save_vqgan(random_vqgan(), source / "vqgan", name="tiny")
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kills, what = done.stdout.splitlines()[-1].split()
    assert what == "kills"
    assert int(kills) >= least
