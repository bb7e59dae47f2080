"""Parts of `benchmarks.gpu_check` that measure: the peaks of a card, and how much of them networks of real size use."""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import generate
from benchmarks.peers.codec_peer import CodecPeer
from benchmarks.support import machine
from benchmarks.support.geometries import F16, tiny
from benchmarks.support.gpu_parts import Absent, Part, Row, Setting, rate
from benchmarks.support.photographs import photographs
from benchmarks.support.rounds import count_flops
from models.bart.config import DalleBartConfig
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.devices import set_torch_state
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.codec import TorchCodec
from models.vqgan.network import VQGAN
from transforms.image_options import ImageOptions
from transforms.images import decode_image

SECONDS = 2.0  # of one measurement
BATCHES = {"float32": (64,), "tf32": (64,), "bfloat16": (64, 256)}
PEER_BATCH = 64
SHAPES = {"mini": ((1, 1), (1, 9), (32, 1), (128, 1), (512, 1)), "mega": ((1, 1), (1, 9), (32, 1), (128, 1), (256, 1))}
PEER_IMAGES, PEER_STEPS = 9, 6
PHOTO_SIDES = (400, 500)
NEEDED = 2500  # images/s, the aim of encoding


def peaks(setting: Setting) -> Iterator[Row]:
    """Matrix products in each dtype, and reading memory."""
    device = torch.device(setting.device)
    for dtype in setting.dtypes():
        set_torch_state(device, torch.get_num_threads(), products=dtype == "tf32")
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        yield Row(dtype, machine.matrix_peak(device, kind, setting.quick), "FLOP/s")
    yield Row("memory", machine.memory_bandwidth(device), "B/s")


def _codec_rates(setting: Setting, items: np.ndarray, name: str) -> Iterator[Row]:
    """Images/s of "encode" or "decode" and the share of the matrix peak."""
    model = _random_vqgan(setting)
    flops = count_flops(getattr(model, name), items[:1])
    for dtype in setting.dtypes():
        for batch in (4,) if setting.quick else BATCHES[dtype]:
            codec = TorchCodec(
                _random_vqgan(setting), name="random", device=setting.device, dtype=dtype, batch_size=batch
            )
            found = rate(partial(_one, getattr(codec, name), items, batch), _seconds(setting))
            yield Row(f"{dtype}, batch {batch}", found, "images/s", setting.share(found * flops, dtype))


def _one(work: Callable[[np.ndarray], np.ndarray], items: np.ndarray, batch: int) -> int:
    work(items.take(range(batch), axis=0, mode="wrap"))
    return batch


def encode(setting: Setting) -> Iterator[Row]:
    yield from _codec_rates(setting, _images(setting), "encode")


def decode(setting: Setting) -> Iterator[Row]:
    yield from _codec_rates(setting, _codes(setting), "decode")


def diffusers(setting: Setting) -> Iterator[Row]:
    """Its `VQModel` with the same weights, as it is used: float32, with torch's default for TF32."""
    _need("diffusers")
    from benchmarks.peers.diffusers_vqgan import load_decoder, load_encoder

    loaders: dict[str, tuple[Callable[..., CodecPeer], np.ndarray]] = {
        "encode": (load_encoder, _images(setting)),
        "decode": (load_decoder, _codes(setting)),
    }
    batch = 4 if setting.quick else PEER_BATCH
    with tempfile.TemporaryDirectory() as folder:
        save_vqgan(_random_vqgan(setting), folder, name="random")
        for name, (load, items) in loaders.items():
            peer = load(Path(folder), torch.device(setting.device), items)
            found = rate(partial(_one, peer.work, items, batch), _seconds(setting))
            yield Row(f"{name}, float32, batch {batch}", found, "images/s")


def _draw(setting: Setting, size: str) -> Iterator[Row]:
    """Images/s of guided images and the share of the nearer limit: bytes read, or products."""
    config = generate.SIZES["tiny" if setting.quick else size]
    device, dtype = torch.device(setting.device), "bfloat16" if setting.on_gpu else "float32"
    torch.manual_seed(0)
    with device:  # random values of billions of weights take long on a CPU
        model = DalleBart(config).eval().requires_grad_(False)
    for prompts, images in ((1, 1),) if setting.quick else SHAPES[size]:
        generator = TokenGenerator(
            model,
            codebook_size=generate.CODEBOOK,
            prompts_per_batch=prompts,
            images_per_prompt=images,
            device=setting.device,
            dtype=dtype,
        )
        found = rate(partial(_images_drawn, generator, config), 0.0)
        note = ""
        if {dtype, "memory"} <= setting.peaks.keys():
            given = (config, prompts, images, dtype, setting.peaks["memory"], setting.peaks[dtype])
            reading, computing = generate.limits_of(*given)
            nearer = "memory" if reading < computing else "products"
            note = f"{found * config.image_length / min(reading, computing):.0%} of the limit by {nearer}"
        what = "of one prompt" if prompts == 1 else "of as many prompts"
        yield Row(f"{size}, {dtype}, {prompts * images} {what}", found, "images/s", note)
        del generator
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _images_drawn(generator: TokenGenerator, config: DalleBartConfig) -> int:
    codes = generate.draw(generator, config)
    return codes.size // codes.shape[-1]


def mini(setting: Setting) -> Iterator[Row]:
    yield from _draw(setting, "mini")


def mega(setting: Setting) -> Iterator[Row]:
    yield from _draw(setting, "mega")


def min_dalle(setting: Setting) -> Iterator[Row]:
    """Its generator at both sizes, float32 as it ships."""
    _need("min_dalle")
    from benchmarks.peers.min_dalle import load_generator

    images, steps = (1, 1) if setting.quick else (PEER_IMAGES, PEER_STEPS)
    for size in ("tiny",) if setting.quick else ("mini", "mega"):
        peer = load_generator(generate.SIZES[size], torch.device(setting.device))
        peer.seconds(images, 1, generate.TOP_K)
        found = images / peer.seconds(images, steps, generate.TOP_K)
        yield Row(f"{size}, float32, {images} of one prompt", found, "images/s", f"from {steps} steps")
        del peer
        gc.collect()


def feeding(setting: Setting) -> Iterator[Row]:
    """JPEGs of 400 to 500 pixels a side to arrays of 256, by threads of one process."""
    torch.set_num_threads(1)
    files = [data for _, data in photographs(8 if setting.quick else 64, PHOTO_SIDES)]
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({1, 2, 4, 8, cores} & {*range(1, cores + 1)}):
        with ThreadPoolExecutor(threads) as pool:
            found = rate(partial(_read, pool, files), _seconds(setting))
        needed = f"{NEEDED / found * threads:.0f} cores for {NEEDED:,} images/s"
        yield Row(f"{threads} threads", found, "images/s", f"{found / threads:.0f} a thread: {needed}")


def _read(pool: ThreadPoolExecutor, files: list[bytes]) -> int:
    return len(list(pool.map(partial(decode_image, options=ImageOptions(size=256)), files)))


def _seconds(setting: Setting) -> float:
    return 0.0 if setting.quick else SECONDS


def _random_vqgan(setting: Setting) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(tiny(F16) if setting.quick else F16).eval().requires_grad_(False)


def _images(setting: Setting) -> np.ndarray:
    side = (tiny(F16) if setting.quick else F16).resolution
    return np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)


def _codes(setting: Setting) -> np.ndarray:
    config = tiny(F16) if setting.quick else F16
    return np.random.default_rng(0).integers(0, config.n_embed, (64, config.spec(name="").codes_per_image))


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Absent(f"{package} is not installed")


PARTS = (
    Part("peaks", peaks, 30),
    Part("encode", encode, 110),
    Part("decode", decode, 110),
    Part("mini", mini, 70),
    Part("mega", mega, 100),
    Part("feeding", feeding, 30),
    Part("diffusers", diffusers, 40),
    Part("min_dalle", min_dalle, 60),
)
