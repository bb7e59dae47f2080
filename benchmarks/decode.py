"""Images/s of the VQGAN decoder beside two peers with the same weights.

python -m benchmarks.decode            f16 with 16,384 codes at 256x256, random weights, about eight minutes
python -m benchmarks.decode --quick    the same network, an image each: its figures mean little
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.codec_peer import DECODING, CodecPeer, count_weights, rate_at
from benchmarks.peers.diffusers_vqgan import load_decoder
from benchmarks.peers.min_dalle import load_detokenizer
from benchmarks.peers.process import PeerProcess
from benchmarks.support import machine, rounds
from benchmarks.support.rounds import Contender
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.codec import TorchCodec
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from pipelines.process import reuse_freed_memory

CONFIG = VQGANConfig()  # f16, 16,384 codes, 256x256: the one geometry that min-dalle has
PEERS = {"diffusers": load_decoder, "min-dalle": load_detokenizer}
BATCHES = {"cpu": (1, 4, 9), "cuda": (1, 9, 64)}  # min-dalle takes square numbers
MOST = {"cpu": 256, "cuda": 4096}  # images of a measurement
DISTINCT = 64
MOST_APART = 1e-3  # of pixels from 0 to 1, in float32


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    rounds.add_flags(parser)
    args = parser.parse_args(argv)
    reuse_freed_memory()  # as the command does
    device = torch.device(args.device)
    batches = (1,) if args.quick else tuple(args.batches or BATCHES[device.type])
    model = _random_model()
    codes = np.random.default_rng(0).integers(0, CONFIG.n_embed, (DISTINCT, CONFIG.spec(name="").codes_per_image))
    print(f"{machine.describe(device)}\n", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        save_vqgan(model, folder, name="random")
        peers = {
            what: stack.enter_context(PeerProcess(load, folder, device, codes, reuse_memory=args.peers_reuse_memory))
            for what, load in PEERS.items()
        }
        contenders = [
            Contender(what, "float32", batch, rate_at(peer, batch)) for what, peer in peers.items() for batch in batches
        ]
        contenders += rounds.of_network(model, device, args.dtypes, batches, codes, TorchCodec.decode)
        peaks = rounds.measure(contenders, device, MOST[device.type], args)
        print(rounds.table(contenders, peaks, rounds.count_flops(model.decode, codes[:1])), "\n")
        print(_ratios(contenders, batches, args.dtypes), "\n")
        print(_same_work(model, codes[: 1 if args.quick else 4], peers))
    return 0


def _random_model() -> VQGAN:
    torch.manual_seed(0)
    model = VQGAN(CONFIG).eval().requires_grad_(False)
    bias = model.decoder.conv_out.bias
    assert bias is not None
    bias.fill_(0.5)  # grey, so that most pixels are not clipped and can be compared
    return model


def _ratios(contenders: list[Contender], batches: tuple[int, ...], dtypes: Sequence[str]) -> str:
    """The table of ours over each peer's, batch by batch."""
    lines = []
    for peer in PEERS:
        for batch in batches:
            other = rounds.at_batch(contenders, peer, "float32", batch)
            ours = [rounds.at_batch(contenders, "model", dtype, batch) for dtype in dtypes]
            cells = [f"{rounds.ratio(contender.rates, other.rates):.2f}" for contender in ours]
            lines.append((f"model / {peer} in float32, batch {batch}", cells))
    return rounds.ratio_table(lines, dtypes)


def _same_work(model: VQGAN, codes: np.ndarray, peers: dict[str, PeerProcess[CodecPeer]]) -> str:
    """A sentence on how alike the networks are: weights, and pixels before they are rounded.

    Raises `RuntimeError` if they are not the same network.
    """
    with torch.inference_mode():
        pixels = model.reconstruct(model.embed(torch.from_numpy(codes))).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    weights = count_weights(model, DECODING)
    parts = []
    for name, peer in peers.items():
        apart = float(np.abs(peer.run(CodecPeer.exact, len(codes)) - pixels).max())
        theirs = peer.run(attrgetter("weights"))
        if theirs != weights or apart > MOST_APART:
            raise RuntimeError(f"{name} is another network: {theirs:,} weights, pixels up to {apart:g} apart")
        parts.append(f"{apart:.1e} ({name})")
    return (
        f"Decoder and codebook have {weights:,} weights in each, the same values; float32 pixels, here "
        f"{pixels.min():.2f} to {pixels.max():.2f}, differ from ours by at most {' and '.join(parts)}."
    )


if __name__ == "__main__":
    sys.exit(main())
