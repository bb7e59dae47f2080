"""Parts of `benchmarks.gpu_check` that hold a device to what vqbeam promises: golden data, the same bytes, and to go on
when memory is short."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from benchmarks.support import machine
from benchmarks.support.gpu_parts import Absent, Part, Row, Setting, require
from models.bart.checkpoint import open_bart
from models.bart.generator import TokenGenerator
from models.bart.request import TokenRequest
from models.devices import set_torch_state
from models.find import find
from models.uniforms import uniforms
from models.vqgan.checkpoint import open_checkpoint
from models.vqgan.codec import TorchCodec
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN

GOLDEN_VQGAN = machine.ROOT / "tests" / "golden" / "vqgan_small"
GOLDEN_BART = machine.ROOT / "tests" / "golden" / "dallebart_small"
LEAST_EQUAL = {"float32": 1.0, "tf32": 0.8, "bfloat16": 0.8}  # of the codes of golden data
MOST_APART = 1e-4  # of pixels from 0 to 1, in float32
STEPS, CODES = 16, 64  # of the golden BART
IMAGES = 40
OOM_BATCH = 512
LEFT_BYTES = 1 << 30  # of the card, while a batch is computed that needs more
REPLICAS = 2


def tokenizer(setting: Setting) -> Iterator[Row]:
    """Codes and images of the reference that the golden tokenizer came with."""
    for dtype in setting.dtypes():
        codec = _codec(setting, dtype)
        pixels = torch.from_numpy(_vqgan("inputs")).to(codec.device, codec.model.dtype).permute(0, 3, 1, 2)
        tokens = torch.from_numpy(_vqgan("random_tokens")).long().to(codec.device)
        set_torch_state(codec.device, 1, convolutions=dtype == "tf32")
        with torch.inference_mode():
            codes = codec.model.codes(codec.model.latents(pixels)).cpu().numpy()
            vectors = codec.model.embed(tokens).to(codec.model.dtype)
            images = codec.model.reconstruct(vectors).permute(0, 2, 3, 1).float().cpu().numpy()
        apart = float(np.abs(images - _vqgan("expected_random_recon")).max())
        yield _equal(f"codes, {dtype}", codes, _vqgan("expected_tokens"), dtype, f"pixels {apart:.1e} apart")
        require(dtype != "float32" or apart < MOST_APART, f"float32 pixels are {apart} from the reference's")


def bart(setting: Setting) -> Iterator[Row]:
    """Greedy codes of the reference that the golden BART came with."""
    for dtype in setting.dtypes():
        for scale in (1, 10):
            found = _generator(setting, dtype).generate(_request(1, scale, 1))[:, 0]
            expected = _bart(f"expected_greedy_codebook_only_scale{scale}")[:, 1:]
            least = dtype if dtype == "float32" else ""  # a code that differs has others follow it
            yield _equal(f"greedy codes, guidance {scale}, {dtype}", found, expected, least)


def same_bytes(setting: Setting) -> Iterator[Row]:
    """Encode, decode and draw twice, by networks that are loaded twice."""
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    for dtype in setting.dtypes():
        found = []
        for _ in range(2):
            codec = _codec(setting, dtype)
            codes = codec.encode(images)
            drawn = _generator(setting, dtype, 2).generate(_request(2, 3, 20))
            found.append([sha256(part.tobytes()).hexdigest() for part in (codes, codec.decode(codes), drawn)])
        require(found[0] == found[1], f"{dtype}: the second time gave other bytes")
        yield Row(f"encode, decode, draw, {dtype}", 1, "of the bytes the same")


def graphs(setting: Setting) -> Iterator[Row]:
    """CUDA graphs of a step against the step itself."""
    setting.need_gpu()
    for dtype in setting.dtypes():
        eager = _generator(setting, dtype, 2)
        eager._records = False
        eager._advance = lambda position, search, run=eager: run._step(STEPS, search)  # type: ignore[method-assign, misc]
        recorded = _generator(setting, dtype, 2)
        asked = _request(2, 3, 20)
        yield _equal(
            f"recorded against single steps, {dtype}", recorded.generate(asked), eager.generate(asked), "float32"
        )


def halving(setting: Setting) -> Iterator[Row]:
    """A batch that does not fit into what is left of the card is computed in smaller ones, to the same codes."""
    setting.need_gpu()
    config = VQGANConfig()
    torch.manual_seed(0)
    model = VQGAN(config).eval().requires_grad_(False)
    side = config.resolution
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
    load = partial(TorchCodec, model, name="random", device=setting.device, dtype="float32", compiled=False)
    expected = np.concatenate([load(batch_size=8).encode(images[at : at + 8]) for at in range(0, IMAGES, 8)])
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device=setting.device)
    told = _Told()
    logging.getLogger(TorchCodec.__module__).addHandler(told)
    found = load(batch_size=OOM_BATCH).encode(images)
    del ballast
    require(bool(told.lines), f"a batch of {OOM_BATCH} fitted into {LEFT_BYTES >> 30} GiB")
    yield _equal("codes with little memory left", found, expected, "bfloat16", told.lines[-1])


def replicas(setting: Setting) -> Iterator[Row]:
    """Processes that share a card give the codes of one alone."""
    with multiprocessing.get_context("spawn").Pool(REPLICAS) as pool:
        found = pool.map(_codes_of, [setting.device] * REPLICAS, chunksize=1)
    require(len(set(found)) == 1, "replicas gave different codes")
    yield Row(f"{REPLICAS} processes at once", 1, "of the codes the same")


def _codes_of(device: str) -> str:
    codec = find("emoji", "").tokenizer.load(device=device, batch_size=8)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    return sha256(b"".join(codec.encode(images).tobytes() for _ in range(4))).hexdigest()


def jobs(setting: Setting) -> Iterator[Row]:
    """`vqbeam encode` of the sample twice, with Beam: the same tables."""
    if importlib.util.find_spec("apache_beam") is None:
        raise Absent("Apache Beam is not installed")
    limit = "8" if setting.quick else "200"
    sample = machine.ROOT / "examples" / "emoji" / "sample" / "*.tar"
    tables = []
    for _ in range(1 if setting.quick else 2):
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--input", str(sample), "--limit", limit, "--device", setting.device, "--output", folder + "/out"]
            command = [sys.executable, "-m", "pipelines", "encode", *flags]
            done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, check=False)
            require(done.returncode == 0, f"vqbeam encode ended with {done.returncode}: {done.stderr[-300:]}")
            files = sorted(Path(folder, "out", "data").glob("*.parquet"))
            tables.append([sha256(path.read_bytes()).hexdigest() for path in files])
    require(tables[0] == tables[-1] != [], "the second job gave other bytes")
    yield Row(f"vqbeam encode, {limit} images", 1, "of the bytes the same", f"{len(tables)} jobs")


class _Told(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _golden(folder: Path, name: str) -> np.ndarray:
    found: np.ndarray = np.load(folder / f"{name}.npy")
    return found


_vqgan, _bart = (partial(_golden, folder) for folder in (GOLDEN_VQGAN, GOLDEN_BART))


def _codec(setting: Setting, dtype: str) -> TorchCodec:
    """The golden tokenizer, uncompiled."""
    network = open_checkpoint(GOLDEN_VQGAN).network()
    return TorchCodec(network, name="golden", device=setting.device, dtype=dtype, batch_size=8, compiled=False)


def _generator(setting: Setting, dtype: str, images: int = 1) -> TokenGenerator:
    return TokenGenerator(
        open_bart(GOLDEN_BART).load(),
        codebook_size=CODES,
        prompts_per_batch=4,
        images_per_prompt=images,
        device=setting.device,
        dtype=dtype,
    )


def _request(images: int, guidance: float, top_k: int) -> TokenRequest:
    ids, mask = _bart("input_ids"), _bart("attention_mask")
    drawn = [[uniforms(0, str(row), image, STEPS) for image in range(images)] for row in range(len(ids))]
    values = {"guidance_scale": guidance, "temperature": 1.0, "top_k": top_k, "top_p": 1.0}
    options = {name: np.full(len(ids), value) for name, value in values.items()}
    return TokenRequest(ids, mask, np.array(drawn), options)


def _equal(what: str, found: np.ndarray, expected: np.ndarray, least: str, note: str = "") -> Row:
    """The share of equal codes; raises `RuntimeError` if it is too small for the dtype `least`, "" for any."""
    share = float(np.mean(found == expected))
    require(share >= LEAST_EQUAL.get(least, 0.0), f"{what}: {share:.2%} are those of the reference")
    return Row(what, share, "of the codes equal", note)


PARTS = (
    Part("tokenizer", tokenizer, 30),
    Part("bart", bart, 30),
    Part("same_bytes", same_bytes, 90),
    Part("graphs", graphs, 40),
    Part("oom", halving, 40),
    Part("replicas", replicas, 60),
    Part("jobs", jobs, 90),
)
