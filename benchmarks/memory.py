"""Peak memory of encode and decode for 1x and 10x the rows: in one shard, in many, in one Parquet row group.

python -m benchmarks.memory            some minutes
python -m benchmarks.memory --quick    a few rows: shows that the script works, its figures mean nothing
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.support import machine
from benchmarks.support.peak_memory import Case, measure
from benchmarks.support.photographs import write_parquet, write_tar
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN

CONFIG = VQGANConfig(  # small, so that the rows decide, not the network
    ch=32,
    ch_mult=(1, 1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
    resolution=32,
    z_channels=8,
    embed_dim=8,
    n_embed=64,
)
PHOTO_SIDES = (250, 320)


@dataclass(frozen=True)
class Sizes:
    """`rows` is 1x: more than are ever in flight at once. `row_group` is the usual one of the Parquet inputs."""

    rows: int
    row_group: int
    shard: int
    sides: tuple[int, int]


FULL = Sizes(rows=2400, row_group=2400, shard=1200, sides=PHOTO_SIDES)
QUICK = Sizes(rows=16, row_group=16, shard=8, sides=(60, 80))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows")
    args = parser.parse_args(argv)
    sizes = QUICK if args.quick else FULL
    print(f"{machine.describe(torch.device('cpu'))}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_vqgan(VQGAN(CONFIG), folder / "model", name="memory")
        within = measure(_cases(folder, sizes), folder, sizes.rows)
    return 0 if within or args.quick else 1


def _cases(folder: Path, sizes: Sizes) -> list[Case]:
    """The cases, in order: those of decode read the tokens that the first case wrote."""
    once, tenfold = sizes.rows, 10 * sizes.rows
    tars = [str(write_tar(folder / f"{rows}.tar", rows, sizes.sides)) for rows in (once, tenfold)]
    tables = [
        str(write_parquet(folder / f"{rows}.parquet", rows, sizes.sides, row_group))
        for rows, row_group in ((once, sizes.row_group), (tenfold, 10 * sizes.row_group))
    ]
    whole = ("--rows_per_shard", str(tenfold))
    cut = ("--rows_per_shard", str(sizes.shard))
    tokens = [str(folder / f"out-0-{run}" / "data" / "*.parquet") for run in range(2)]
    images = ("--image_format", "jpeg", "--image_layout", "webdataset")
    model = ("--model", str(folder / "model"))

    def case(what: str, command: str, inputs: Sequence[str], flags: Sequence[str]) -> Case:
        small, large = ((command, "--input", source, *model, *flags) for source in inputs)
        return Case(what, small, large)

    return [
        case("encode, WebDataset, one shard", "encode", tars, whole),
        case(f"encode, WebDataset, shards of {sizes.shard}", "encode", tars, cut),
        case("encode, Parquet, one row group, one shard", "encode", tables, whole),
        case("decode to WebDataset, one shard", "decode", tokens, (*images, *whole)),
        case(f"decode to WebDataset, shards of {sizes.shard}", "decode", tokens, (*images, *cut)),
    ]


if __name__ == "__main__":
    sys.exit(main())
