"""Images/s of the bare encoder, the whole pipeline and a peer.

python -m benchmarks.encode                     f16 with 16,384 codes at 256x256, random weights, about five minutes
python -m benchmarks.encode --family chameleon  the tokenizer of another family, at its real size
python -m benchmarks.encode --family llamagen --image_size 384    at another size of images
python -m benchmarks.encode --quick             a tiny network, some seconds: its figures mean nothing
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.codec_peer import ENCODING, CodecPeer, count_weights, rate_at
from benchmarks.peers.process import PeerProcess
from benchmarks.support import machine, rounds
from benchmarks.support.emoji import compare_precision
from benchmarks.support.geometries import FAMILIES, tiny
from benchmarks.support.photographs import DISTINCT, photographs, write_tar
from benchmarks.support.rounds import Contender
from benchmarks.support.shard_run import ShardRunner
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.checkpoint import VQGANCheckpoint, save_vqgan
from models.vqgan.codec import TorchCodec
from models.vqgan.config import VQGANConfig
from pipelines.process import reuse_freed_memory
from transforms.image_options import image_options
from transforms.images import decode_image
from transforms.inputs.request import InputRequest
from transforms.work.encode import Encode, EncodeStep
from transforms.work.step import ModelSettings

PEERS = {  # of families whose original is a class that can be installed
    "vqgan": ("diffusers", "benchmarks.peers.diffusers_vqgan"),
    "diffusers": ("diffusers", "benchmarks.peers.diffusers_vqgan"),
    "chameleon": ("transformers", "benchmarks.peers.chameleon_vqvae"),
}
PHOTO_SIDES = (400, 500)
PIPELINE_SHARE = 3  # times the others' seconds: a shard's beginning and end weigh little only if it is long
TAR_ROWS = {"cpu": 256, "cuda": 4096}  # images of a measurement, at most
QUICK_ROWS = 32
Peer = tuple[str, PeerProcess[CodecPeer]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    rounds.add_flags(parser)
    parser.add_argument("--family", choices=FAMILIES, default="vqgan", help="whose network (default: %(default)s)")
    parser.add_argument("--image_size", type=int, metavar="N", help="pixels a side (default: the usual of the family)")
    args = parser.parse_args(argv)
    reuse_freed_memory()  # as the command does
    config = tiny(FAMILIES[args.family]) if args.quick else FAMILIES[args.family]
    config = config.at(args.image_size) if args.image_size else config
    peer_name, loader = PEERS.get(args.family, (None, ""))
    device = torch.device(args.device)
    torch.manual_seed(0)
    unread = VQGANCheckpoint(
        path=Path(), format="vqbeam", name="random", config=config, files=(), leaves=lambda: iter(())
    )
    model = unread.builder()().eval().requires_grad_(False)
    print(f"{machine.describe(device)}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = QUICK_ROWS if args.quick else TAR_ROWS[device.type]
        tar = write_tar(folder / "photographs.tar", most, PHOTO_SIDES)
        images = _prepared(config, min(most, DISTINCT))
        save_vqgan(model, folder / "model", name="random")
        given = (folder / "model", device, images)
        with ExitStack() as stack:
            peer: Peer | None = None
            if peer_name is not None:
                load = import_module(loader).load_encoder
                peer = peer_name, stack.enter_context(PeerProcess(load, *given, reuse_memory=args.peers_reuse_memory))
            contenders = _contenders(model, device, images, peer, tar, folder, args)
            peaks = rounds.measure(contenders, device, most, args)
            print(rounds.table(contenders, peaks, rounds.count_flops(model.encode, images[:1])), "\n")
            print(_ratios(contenders, peer_name, args.dtypes), "\n")
            if peer is not None:
                print(_same_work(model, device, images[:2], *peer), "\n", flush=True)
        if not args.image_size:
            print(_command(folder, tar, args.dtypes[-1]), "\n")
    if args.family == "vqgan":
        print(compare_precision(args.device, 16 if args.quick else None))
    return 0


def _prepared(config: VQGANConfig, count: int) -> np.ndarray:
    """uint8 [count, side, side, 3]."""
    options = image_options(config.resolution, config.preprocessing, {})
    return np.stack([decode_image(data, options).pixels for _, data in photographs(count, PHOTO_SIDES)])


def _contenders(
    model: TokenizerNetwork,
    device: torch.device,
    images: np.ndarray,
    peer: Peer | None,
    tar: Path,
    folder: Path,
    args: argparse.Namespace,
) -> list[Contender]:
    usual = 8 if args.quick else model.config.spec(name="random").batch_size(str(device))
    others: tuple[int, ...] = (1, 4) if device.type == "cpu" else (16, 64)
    sizes = (usual,) if args.quick else tuple(sorted({*(args.batches or others), usual}))
    contenders = []
    if peer is not None:
        name, process = peer
        contenders += [Contender(name, "float32", batch, rate_at(process, batch)) for batch in sizes]
    contenders += rounds.of_network(model, device, args.dtypes, sizes, images, TorchCodec.encode)
    for dtype in args.dtypes:
        codec = TorchCodec(copy.deepcopy(model), name="random", device=str(device), dtype=dtype, batch_size=usual)
        contenders.append(Contender("pipeline", dtype, usual, _pipeline(codec, tar, folder), PIPELINE_SHARE))
    return contenders


def _pipeline(codec: TorchCodec, tar: Path, folder: Path) -> Callable[[int], float]:
    """`Contender.run` for what a worker of `vqbeam encode` does with a shard."""
    settings = ModelSettings(
        name=codec.spec.name,
        cache_dir=str(folder),
        backend="torch",
        device=str(codec.device),
        dtype=codec.dtype,
        batch_size=codec.batch_size,
        threads=codec.threads,
    )
    work = Encode(settings, image_options(codec.spec.resolution, codec.spec.preprocessing, {}), codec.spec)
    request = InputRequest(patterns=(str(tar),))
    step = EncodeStep(settings)
    step.tokenizer = codec
    runner = ShardRunner(work, step, request, folder, codec.threads)
    return lambda rows: runner.run(rows).clock


def _ratios(contenders: list[Contender], peer: str | None, dtypes: Sequence[str]) -> str:
    """The table of the figures that are promised."""
    lines = []
    if peer is not None:
        other = rounds.fastest(contenders, peer, "float32")
        best = [rounds.fastest(contenders, "model", dtype) for dtype in dtypes]
        cells = [f"{rounds.ratio(ours.rates, other.rates):.2f} (batch {ours.batch})" for ours in best]
        lines.append((f"model / {peer} in float32 at its best batch ({other.batch})", cells))
    cells = []
    for dtype in dtypes:
        whole = rounds.fastest(contenders, "pipeline", dtype)
        bare = rounds.at_batch(contenders, "model", dtype, whole.batch)
        cells.append(f"{rounds.ratio(whole.rates, bare.rates):.3f}")
    lines.append(("pipeline / model at the same batch", cells))
    return rounds.ratio_table(lines, dtypes)


def _same_work(
    model: TokenizerNetwork, device: torch.device, images: np.ndarray, name: str, other: PeerProcess[CodecPeer]
) -> str:
    """A sentence on how alike the two networks are: weights and codes."""
    codec = TorchCodec(copy.deepcopy(model), name="random", device=str(device), dtype="float32")
    codes = np.concatenate([codec.encode(image[None]) for image in images])
    theirs = other.run(CodecPeer.exact, len(images))
    weights, weights_there = count_weights(model, ENCODING), other.run(attrgetter("weights"))
    return (
        f"Encoder and codebook have {weights:,} weights here and {weights_there:,} in {name}, the same values; "
        f"{np.mean(codes == theirs):.2%} of the float32 codes are equal. "
        f"Convolutions here in float32: {codec.convolutions}."
    )


def _command(folder: Path, tar: Path, dtype: str) -> str:
    """Times `vqbeam encode` as a user starts it, start-up included."""
    flags = ["--limit", str(QUICK_ROWS), "--dtype", dtype, "--model", str(folder / "model")]
    flags += ["--input", str(tar), "--output", str(folder / "out")]
    command = [sys.executable, "-m", "pipelines", "encode", *flags]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"vqbeam encode ended with {done.returncode}:\n{done.stderr}")
    return f"`vqbeam encode` of {QUICK_ROWS} images in {dtype}, start to end: {time.perf_counter() - start:.1f} s."


if __name__ == "__main__":
    sys.exit(main())
