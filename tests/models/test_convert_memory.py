"""Converting a checkpoint of about 200 MB, in a process of its own, whose peak of memory is read from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.vqgan import VQGAN, VQGANConfig
from tests.fixtures_checkpoints import TINY, random_vqgan, write_taming, write_vqgan_jax

CONFIG = VQGANConfig(ch=128, ch_mult=(1, 2, 4), num_res_blocks=1, attn_resolutions=(64,), n_embed=16384)
MEASURE = """
import sys
from models.checkpoints import convert, load_vqgan

def memory(field):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines[field].split()[0]) * 1024

action, source, target, small = sys.argv[1:]
convert(small, target + "_small")  # loads what torch loads on first use
before = memory("VmRSS")
kept = convert(source, target) if action == "convert" else load_vqgan(source)
print(memory("VmHWM") - before)
"""
SLACK = 16 << 20  # what the allocator rounds up and does not give back


def weights() -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: leaf.shape for name, leaf in VQGAN(CONFIG).state_dict().items()}
    return {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("write", "action"), [(write_vqgan_jax, "convert"), (write_vqgan_jax, "load"), (write_taming, "convert")]
)
def test_peak_memory_is_the_weights_and_their_largest_leaf(
    write: Callable[[Path, dict[str, Tensor], VQGANConfig], Path], action: str, tmp_path: Path
) -> None:
    leaves = weights()
    sizes = [leaf.numel() * leaf.element_size() for leaf in leaves.values()]
    assert 190e6 < sum(sizes) < 240e6
    write(tmp_path / "source", leaves, CONFIG)
    write_vqgan_jax(tmp_path / "small", dict(random_vqgan().state_dict()), TINY)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [
        sys.executable,
        "-c",
        MEASURE,
        action,
        str(tmp_path / "source"),
        str(tmp_path / "own"),
        str(tmp_path / "small"),
    ]
    peak = int(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)
    print(f"{action}: {peak / 1e6:.0f} MB for {sum(sizes) / 1e6:.0f} MB, largest leaf {max(sizes) / 1e6:.0f} MB")
    assert peak < sum(sizes) + max(sizes) + SLACK
