"""Image tokens/s of the token generator beside min-dalle and the limits of memory and the units that multiply.

python -m benchmarks.generate                at the size of DALL·E mini, random weights: eight minutes, a round at least
python -m benchmarks.generate --size mega    the size of mega: 20 GiB of memory, a quarter of an hour
python -m benchmarks.generate --quick        a tiny network, some seconds: its figures mean nothing
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch

from benchmarks.peers.min_dalle import MinDalleGenerator, load_generator
from benchmarks.peers.process import PeerProcess
from benchmarks.support import machine
from benchmarks.support.rounds import ratio
from models.bart.compiled.decoder import kind_of_products, worth_it
from models.bart.config import DalleBartConfig
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.bart.request import TokenRequest
from models.devices import INT8, gpu_bytes, torch_dtype
from models.uniforms import uniforms

SIZES = {
    "mini": DalleBartConfig(),
    "mega": DalleBartConfig(
        encoder_vocab_size=50272,
        image_vocab_size=16415,
        d_model=2048,
        encoder_layers=24,
        encoder_ffn_dim=4096,
        encoder_attention_heads=32,
        decoder_layers=24,
        decoder_ffn_dim=4096,
        decoder_attention_heads=32,
        decoder_start_token_id=16415,
    ),
    "tiny": DalleBartConfig(  # min-dalle's numbers of pieces, codes and their vocabulary are fixed
        encoder_vocab_size=100,
        d_model=64,
        encoder_layers=2,
        encoder_ffn_dim=100,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=100,
        decoder_attention_heads=2,
    ),
}
CODEBOOK = 16384
SHAPES = ((1, 1), (1, 9), (32, 1))  # prompts, images of each
GPU_SHAPES = (*SHAPES, (128, 1), (512, 1))  # the best batch is a large one there
PEER_IMAGES = (1, 9)
TARGETS = {1: 6, 9: 12, 32: 18}  # on a CPU
GPU_TARGET = 30  # at the best batch
GUIDANCE, TOP_K = 10, 50
PIECES = 12  # of each caption
SINGLES, BYTES = "float32 in registers", "bytes in registers, two an input,"


@dataclass
class Rates:
    """Image tokens/s of one contender over the rounds."""

    name: str
    dtype: str
    images: int
    what: str
    path: str = ""  # what computes the products
    limits: tuple[float, float] | None = None  # tokens/s if only bytes, or only products, took time
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("--size", choices=("mini", "mega"), default="mini")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--minutes", type=float, default=2.5, help="rounds begin until then; at least one is made")
    parser.add_argument("--peer_steps", type=int, default=12, help="of min-dalle's steps, which all cost the same")
    parser.add_argument(
        "--dtypes", help="of ours, with commas; min-dalle runs float32 as it ships (default: all that pay)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    config = SIZES["tiny" if args.quick else args.size]
    print(f"{machine.describe(device)}\n", flush=True)
    dtypes = (args.dtypes or ("bfloat16" if device.type == "cuda" else "float32,bfloat16,int8")).split(",")
    start = time.monotonic()
    bandwidth = machine.memory_bandwidth(device)
    contenders = [Rates("min-dalle", "float32", images, "of one prompt") for images in PEER_IMAGES]
    peaks = Peaks(device, args.quick)
    for dtype in dtypes:
        for prompts, images in _shapes(config, dtype, device):
            what = "of one prompt" if prompts == 1 else "of as many prompts"
            path, unit = _path(config, 2 * prompts * images, dtype, device)
            limits = limits_of(config, prompts, images, dtype, bandwidth, peaks.of(unit))
            contenders.append(Rates("vqbeam", dtype, prompts * images, what, path, limits))
    number = 0
    while not number or (not args.quick and time.monotonic() < start + 60 * args.minutes):
        theirs = _measure_peer(config, device, contenders[: len(PEER_IMAGES)], args.peer_steps)
        ours = _measure_ours(config, device, contenders[len(PEER_IMAGES) :], dtypes)
        print(
            f"round {(number := number + 1)}: "
            + ", ".join(f"{c.name} {c.images} {c.rates[-1]:.1f}" for c in contenders),
            file=sys.stderr,
        )
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"memory {bandwidth / 1e9:.1f} GB/s; peak of products "
        + ", ".join(f"{unit} {peak / 1e9:.0f} GFLOP/s" for unit, peak in peaks.found.items())
    )
    print(f"{theirs:,} weights in min-dalle, {ours:,} here; peak memory here {mebibytes:,.0f} MiB\n")
    print(_table(contenders, config.image_length), "\n")
    print(_ratios(contenders, TARGETS if device.type == "cpu" else {}))
    return 0


@dataclass
class Peaks:
    """Operations/s of each unit that is asked for: torch's by a dtype, and those of the compiled products."""

    device: torch.device
    quick: bool
    found: dict[str, float] = field(default_factory=dict)

    def of(self, unit: str) -> float:
        if unit not in self.found:
            self.found[unit] = self._measured(unit)
        return self.found[unit]

    def _measured(self, unit: str) -> float:
        if unit not in (SINGLES, BYTES):
            return machine.matrix_peak(self.device, torch_dtype(unit), self.quick)
        from benchmarks.support.unit_peak import unit_peak

        peak = torch.get_num_threads() * unit_peak(of_bytes=unit == BYTES)
        return peak / 2 if unit == BYTES else peak  # each input is two bytes


def _path(config: DalleBartConfig, rows: int, dtype: str, device: torch.device) -> tuple[str, str]:
    """What computes the products, and the unit that it uses."""
    kept = torch_dtype(dtype)
    if not worth_it(config, rows, device, kept, "panels"):
        return "torch", dtype
    from models.bart.compiled import panels

    kind = kind_of_products(rows, kept, "panels")
    of_bytes = kind == "panels" and dtype == INT8 and panels.multiplies_bytes()
    return f"{kind} of bytes" if of_bytes else kind, BYTES if of_bytes else dtype if kind == "tiles" else SINGLES


def _shapes(config: DalleBartConfig, dtype: str, device: torch.device) -> tuple[tuple[int, int], ...]:
    """(prompts, images of each); on a GPU only shapes whose caches fill at most half of its memory."""
    if device.type == "cpu":
        return SHAPES
    row = 2 * config.decoder_layers * config.image_length * config.d_model * torch_dtype(dtype).itemsize
    return tuple(shape for shape in GPU_SHAPES if 2 * shape[0] * shape[1] * row <= gpu_bytes(str(device)) / 2)


def _measure_peer(config: DalleBartConfig, device: torch.device, contenders: list[Rates], steps: int) -> int:
    """Measures one round of the peer; returns the number of its weights."""
    with PeerProcess(load_generator, config, device) as peer:
        for contender in contenders:
            seconds = peer.run(MinDalleGenerator.seconds, contender.images, steps, TOP_K)
            contender.rates.append(contender.images * config.image_length / seconds)
        return int(peer.run(attrgetter("weights")))


def _measure_ours(config: DalleBartConfig, device: torch.device, contenders: list[Rates], dtypes: list[str]) -> int:
    """Measures one round of whole images; returns the number of our weights. Holds one generator at a time."""
    torch.manual_seed(0)
    model = DalleBart(config).eval().requires_grad_(False)
    shapes = [(dtype, *shape) for dtype in dtypes for shape in _shapes(config, dtype, device)]
    for contender, (dtype, prompts, images) in zip(contenders, shapes, strict=True):
        generator = TokenGenerator(
            model,
            codebook_size=CODEBOOK,
            prompts_per_batch=prompts,
            images_per_prompt=images,
            device=str(device),
            dtype=dtype,
        )
        if device.type == "cuda":
            draw(generator, config)  # records the graphs
        start = time.perf_counter()
        codes = draw(generator, config)
        contender.rates.append(codes.size / (time.perf_counter() - start))
        del generator
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return sum(parameter.numel() for parameter in model.parameters())


def draw(generator: TokenGenerator, config: DalleBartConfig) -> np.ndarray:
    """All codes of a full batch: different captions, guided, sampled."""
    prompts, images = generator.prompts_per_batch, generator.images_per_prompt
    ids = np.ones((prompts, config.max_text_length), np.int64)
    ids[:, :PIECES] = np.random.default_rng(0).integers(3, config.encoder_vocab_size, (prompts, PIECES))
    mask = np.broadcast_to(np.arange(config.max_text_length) < PIECES, ids.shape).astype(np.int64)
    drawn = [[uniforms(0, str(p), s, config.image_length) for s in range(images)] for p in range(prompts)]
    values = {"guidance_scale": GUIDANCE, "temperature": 1.0, "top_k": TOP_K, "top_p": 1.0}
    options = {name: np.full(prompts, value) for name, value in values.items()}
    return generator.generate(TokenRequest(ids, mask, np.array(drawn), options))


def limits_of(
    config: DalleBartConfig, prompts: int, images: int, dtype: str, bandwidth: float, peak: float
) -> tuple[float, float]:
    """Tokens/s if only reading weights and caches, or only the products with weights, took time.

    A step reads the decoder's weights except those of captions' keys and values, half of the full caches on average,
    and `lm_head`, which sees a row of each image. All are in `dtype`; with int8 all but the weights are in bfloat16.
    """
    size, layers, hidden = config.d_model, config.decoder_layers, config.decoder_ffn_dim
    width = 1 if dtype == INT8 else torch_dtype(dtype).itemsize
    weights = layers * (6 * size * size + 3 * size * hidden)
    head = CODEBOOK * size
    drawn = prompts * images
    caches = 2 * size * layers * (2 * drawn * config.image_length / 2 + prompts * PIECES)
    rest = 2 if dtype == INT8 else width
    seconds_reading = (width * weights + rest * (caches + head)) / bandwidth
    seconds_computing = 2 * (2 * drawn * weights + drawn * head) / peak
    return drawn / seconds_reading, drawn / seconds_computing


def _table(contenders: list[Rates], length: int) -> str:
    columns = ["what", "dtype", "products by", "images at once", "image tokens/s", "lowest to highest", "images/min"]
    columns += ["limit: memory", "limit: products", "share of the nearer"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for c in contenders:
        cells = [c.name, c.dtype, c.path, f"{c.images} {c.what}", f"{c.median:.1f}"]
        cells += [f"{min(c.rates):.1f} to {max(c.rates):.1f}", f"{60 * c.median / length:.2f}"]
        cells += (
            [f"{c.limits[0]:.0f}", f"{c.limits[1]:.0f}", f"{c.median / min(c.limits):.0%}"] if c.limits else [""] * 3
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratios(contenders: list[Rates], targets: Mapping[int, int]) -> str:
    """Ours over min-dalle's in the same round; for many prompts, which it cannot batch, over its best."""
    peers = {c.images: c for c in contenders if c.name == "min-dalle"}
    lines = ["| vqbeam / min-dalle | times | aim |", "|---|---|---|"]
    for c in contenders:
        if c.name == "vqbeam":
            peer = peers.get(c.images, peers[max(peers)])
            what = f"{c.images} {c.what}, {c.dtype} / {peer.images} {peer.what}"
            lines.append(f"| {what} | {ratio(c.rates, peer.rates):.1f} | {targets.get(c.images, GPU_TARGET)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
