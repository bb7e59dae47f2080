"""Images/s of the bare encoder, the whole pipeline and a peer, taken in turns so that other load hits all alike.

python -m benchmarks.encode            f16 with 16,384 codes at 256x256, random weights, about five minutes
python -m benchmarks.encode --quick    a tiny network, some seconds: its figures mean nothing
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.peer import NOT_COMPARED
from benchmarks.peer_process import PeerProcess
from benchmarks.photographs import DISTINCT, photographs, write_tar
from benchmarks.precision import measure_precision
from benchmarks.shard_run import ShardRunner
from models.checkpoints import save_vqgan
from models.codec import TorchCodec
from models.devices import default_batch_size
from models.vqgan import VQGAN, VQGANConfig
from pipelines.memory_reuse import reuse_freed_memory
from transforms.images import ImageOptions, decode_image

REAL = VQGANConfig()  # f16, 16,384 codes, 256x256
TINY = VQGANConfig(
    ch=32,
    ch_mult=(1, 1),
    num_res_blocks=1,
    attn_resolutions=(16,),
    resolution=32,
    z_channels=8,
    embed_dim=8,
    n_embed=64,
)
PHOTO_SIDES = (400, 500)
DTYPES = ("float32", "bfloat16")
LEAST_ROUNDS = 3
PIPELINE_SHARE = 3  # of a measurement: a shard has a beginning and an end that weigh little only where it is long
TAR_ROWS = {"cpu": 256, "cuda": 4096}  # at most so many pictures a measurement
QUICK_ROWS = 32


@dataclass
class Contender:
    """Something that turns pictures into codes; `run(n)` gives images/s over n of them."""

    name: str
    dtype: str
    batch: int
    run: Callable[[int], float]
    rows: int = 0
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--minutes", type=float, default=3.2, help="of measuring; at least three rounds are made")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    reuse_freed_memory()  # as the command does
    config = TINY if args.quick else REAL
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = VQGAN(config).eval().requires_grad_(False)
    print(f"{machine.describe(device)}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = QUICK_ROWS if args.quick else TAR_ROWS[device.type]
        tar = write_tar(folder / "photographs.tar", most, PHOTO_SIDES)
        pictures = _prepared(config.resolution, min(most, DISTINCT))
        save_vqgan(model, folder / "model", name="random")
        other = PeerProcess(folder / "model", device, pictures)
        try:
            contenders = _contenders(model, device, pictures, other, tar, folder, args.quick)
            peaks = _measure(contenders, device, most, args)
            flops = _flops(model, pictures[:1])
            print(_table(contenders, peaks, flops), "\n")
            print(_ratios(contenders), "\n")
            print(_same_work(model, device, pictures[:2], other), "\n", flush=True)
        finally:
            other.close()
        print(_command(folder, tar), "\n")
    print(_precision(args.device, 16 if args.quick else None))
    return 0


def _prepared(side: int, count: int) -> np.ndarray:
    """uint8 [count, side, side, 3]."""
    options = ImageOptions(size=side)
    return np.stack([decode_image(data, options).pixels for _, data in photographs(count, PHOTO_SIDES)])


def _contenders(
    model: VQGAN,
    device: torch.device,
    pictures: np.ndarray,
    other: PeerProcess,
    tar: Path,
    folder: Path,
    quick: bool,
) -> list[Contender]:
    usual = 8 if quick else default_batch_size(str(device), model.config)
    others: tuple[int, ...] = (1, 4) if device.type == "cpu" else (16, 64)
    sizes = (usual,) if quick else tuple(sorted({*others, usual}))
    contenders: list[Contender] = []
    for dtype in DTYPES:
        if dtype == "float32":
            for batch in sizes:
                contenders.append(Contender("diffusers", dtype, batch, partial(other.rate, batch=batch)))
        network = copy.deepcopy(model)
        for batch in sizes:
            codec = TorchCodec(
                network, name="random", codebook_id="", device=str(device), dtype=dtype, batch_size=batch
            )
            contenders.append(Contender("model", dtype, batch, _in_batches(codec.encode, pictures, batch)))
            if batch == usual:
                contenders.append(Contender("pipeline", dtype, batch, ShardRunner(codec, tar, folder)))
    return contenders


def _in_batches(encode: Callable[[np.ndarray], object], pictures: np.ndarray, batch: int) -> Callable[[int], float]:
    """Whole batches of prepared pictures, whose results are on the host when the clock stops."""

    def run(rows: int) -> float:
        start = time.perf_counter()
        for first in range(0, rows, batch):
            encode(pictures.take(range(first, first + batch), axis=0, mode="wrap"))
        return rows / (time.perf_counter() - start)

    return run


def _measure(
    contenders: list[Contender], device: torch.device, most: int, args: argparse.Namespace
) -> dict[str, float]:
    """Fill in the rates, each over at most `most` pictures; the matrix peak by dtype, of the same rounds."""
    for contender in contenders:
        contender.run(contender.batch)  # the first call allocates and, on a GPU, compiles
        seconds = 0.0 if args.quick else args.seconds * (PIPELINE_SHARE if contender.name == "pipeline" else 1)
        batches = seconds * contender.run(contender.batch) / contender.batch
        contender.rows = min(most, max(2, round(batches)) * contender.batch)
    sides = (256,) if args.quick else machine.SIDES
    peaks: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    end = time.monotonic() + 60 * args.minutes
    rounds = 0
    while rounds < (1 if args.quick else LEAST_ROUNDS) or (not args.quick and time.monotonic() < end):
        for dtype in DTYPES:
            peaks[dtype].append(machine.matrix_peak(device, getattr(torch, dtype), sides))
        for contender in contenders:
            contender.rates.append(contender.run(contender.rows))
        rounds += 1
        print(f"round {rounds} is done", file=sys.stderr, flush=True)
    return {dtype: statistics.median(values) for dtype, values in peaks.items()}


def _flops(model: VQGAN, picture: np.ndarray) -> float:
    """Of one picture to its codes, convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).encode(torch.from_numpy(picture))
    return float(counter.get_total_flops())


def _table(contenders: list[Contender], peaks: dict[str, float], flops: float) -> str:
    lines = [
        f"{flops / 1e9:.1f} GFLOP an image; matrix peak "
        + ", ".join(
            f"{dtype} {peak / 1e9:.0f} GFLOP/s (limit {peak / flops:.2f} images/s)" for dtype, peak in peaks.items()
        )
        + f"; medians of {len(contenders[0].rates)} rounds.",
        "",
        "| what | dtype | batch | images/s | lowest to highest | GFLOP/s | of the peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in contenders:
        speed = c.median * flops
        lines.append(
            f"| {c.name} | {c.dtype} | {c.batch} | {c.median:.2f} | {min(c.rates):.2f} to {max(c.rates):.2f} "
            f"| {speed / 1e9:.0f} | {speed / peaks[c.dtype]:.0%} |"
        )
    return "\n".join(lines)


def _ratios(contenders: list[Contender]) -> str:
    """The figures that are promised, each the median of the ratios within a round."""
    other = _fastest(contenders, "diffusers", "float32")
    lines = ["| ratio | float32 | bfloat16 |", "|---|---|---|"]
    best = {dtype: _fastest(contenders, "model", dtype) for dtype in DTYPES}
    cells = [f"{_ratio(best[dtype], other):.2f} (batch {best[dtype].batch})" for dtype in DTYPES]
    lines.append(f"| model / diffusers in float32 at its best batch ({other.batch}) | {' | '.join(cells)} |")
    cells = []
    for dtype in DTYPES:
        whole = _fastest(contenders, "pipeline", dtype)
        bare = next(c for c in contenders if (c.name, c.dtype, c.batch) == ("model", dtype, whole.batch))
        cells.append(f"{_ratio(whole, bare):.3f}")
    lines.append(f"| pipeline / model at the same batch | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fastest(contenders: list[Contender], name: str, dtype: str) -> Contender:
    return max((c for c in contenders if (c.name, c.dtype) == (name, dtype)), key=lambda c: c.median)


def _ratio(a: Contender, b: Contender) -> float:
    return statistics.median(x / y for x, y in zip(a.rates, b.rates, strict=True))


def _same_work(model: VQGAN, device: torch.device, pictures: np.ndarray, other: PeerProcess) -> str:
    """How alike the two networks are: weights and codes."""
    codec = TorchCodec(copy.deepcopy(model), name="random", codebook_id="", device=str(device), dtype="float32")
    codes = np.concatenate([codec.encode(picture[None]) for picture in pictures])
    theirs = other.codes(len(pictures))
    weights = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(NOT_COMPARED))
    return (
        f"Encoder and codebook have {weights:,} weights here and {other.weights():,} in diffusers, the same values; "
        f"{np.mean(codes == theirs):.2%} of the float32 codes are equal."
    )


def _command(folder: Path, tar: Path) -> str:
    """`vqbeam encode` as a user starts it, start-up included."""
    rows = QUICK_ROWS
    flags = ["--limit", str(rows), "--dtype", "bfloat16", "--model", str(folder / "model")]
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "encode",
        "--input",
        str(tar),
        "--output",
        str(folder / "out"),
        *flags,
    ]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    if done.returncode:
        raise RuntimeError(f"vqbeam encode ended with {done.returncode}:\n{done.stderr}")
    return f"`vqbeam encode` of {rows} pictures in bfloat16, start to end: {time.perf_counter() - start:.1f} s."


def _precision(device: str, limit: int | None) -> str:
    found = measure_precision(device, limit)
    if found is None:
        return "models/emoji or examples/emoji/sample is missing: bfloat16 is not compared with float32."
    return (
        f"bfloat16 against float32, trained emoji model, {found.pictures} pictures: {found.equal:.2%} of the tokens "
        f"equal; PSNR {found.psnr_bfloat16:.3f} dB against {found.psnr_float32:.3f} dB "
        f"({found.psnr_bfloat16 - found.psnr_float32:+.3f})."
    )


if __name__ == "__main__":
    sys.exit(main())
