"""Steps of drawing at the size of DALL·E mini, beside another checkout of vqbeam: processor seconds, in turns.

python -m benchmarks.drawing_steps --against FOLDER    a checkout whose decoders are to be compared, some minutes
python -m benchmarks.drawing_steps --quick             a tiny network, beside this checkout itself

Other work on the machine hardly moves processor seconds, so this can be measured beside it. The weights are random, and
nine steps are spread over an image, whose caches are filled.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from benchmarks.generate import CODEBOOK, GUIDANCE, PIECES, SIZES, TOP_K
from benchmarks.support import machine
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.bart.request import TokenRequest
from models.bart.sampling import Search
from models.devices import set_torch_state

POSITIONS = range(7, 256, 31)
SHAPES = {"1": (1, 1), "9": (1, 9), "32": (32, 1)}  # prompts, and images of each, by images


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing_steps", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--against", default=str(machine.ROOT), metavar="FOLDER", help="the other checkout")
    parser.add_argument("--here", default="int8:1,int8:9,int8:32", help="dtypes and images, with commas")
    parser.add_argument("--there", default="int8:1,float32:9,float32:32", help="the same for the other checkout")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        return serve(args.quick)
    print(f"{machine.describe()}; {machine.units()}\n")
    print("| images at once | dtype there | ms a step | dtype here | ms a step | times |")
    print("|---|---|---|---|---|---|")
    there, here = (_start(Path(folder), args.quick) for folder in (args.against, str(machine.ROOT)))
    for asked in zip(args.there.split(","), args.here.split(","), strict=True):
        rounds = [[_ask(*pair) for pair in zip((there, here), asked, strict=True)] for _ in range(args.rounds)]
        before, after = (1000 * statistics.median(seconds) for seconds in zip(*rounds, strict=True))
        times = statistics.median(old / new for old, new in rounds)
        (old, _), (new, images) = (job.split(":") for job in asked)
        print(f"| {images} | {old} | {before:.1f} | {new} | {after:.1f} | {times:.2f} |", flush=True)
    for process in (there, here):
        process.communicate()
    return 0


def _start(folder: Path, quick: bool) -> subprocess.Popen[str]:
    """This script in a process that imports the models of the checkout in `folder`."""
    command = [sys.executable, __file__, "--serve", *(["--quick"] if quick else [])]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(process: subprocess.Popen[str], job: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{job}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def serve(quick: bool) -> int:
    """Answers each line DTYPE:IMAGES with the processor seconds of a step."""
    config = SIZES["tiny" if quick else "mini"]
    torch.manual_seed(0)
    model = DalleBart(config).eval().requires_grad_(False)
    for line in sys.stdin:
        dtype, images = line.split(":")
        print(_seconds(model, dtype, *SHAPES[images.strip()]), flush=True)
        gc.collect()
    return 0


def _seconds(model: DalleBart, dtype: str, prompts: int, images: int) -> float:
    config = model.config
    generator = TokenGenerator(
        model, codebook_size=CODEBOOK, prompts_per_batch=prompts, images_per_prompt=images, device="cpu", dtype=dtype
    )
    ids = np.ones((prompts, config.max_text_length), np.int64)
    mask = np.broadcast_to(np.arange(config.max_text_length) < PIECES, ids.shape).astype(np.int64)
    options = {"guidance_scale": GUIDANCE, "temperature": 1.0, "top_k": TOP_K, "top_p": 1.0}
    drawn = np.full((prompts, images, config.image_length), 0.5)
    request = TokenRequest(ids, mask, drawn, {name: np.full(prompts, value) for name, value in options.items()})
    search = Search.covering(request.options)
    taken = []
    with torch.inference_mode():
        _fill(generator)
        set_torch_state(generator.device, generator.threads)
        generator._read_captions(request)
        generator._buffers.fill(generator._shape.padded(request), config.decoder_start_token_id)
        with getattr(generator, "_undisturbed", nullcontext)():  # other checkouts may not have it
            for position in (POSITIONS[0], *POSITIONS):
                generator._buffers.position.fill_(position)
                start = time.process_time()
                generator._step(position + 1, search, exact=True)
                taken.append(time.process_time() - start)
    return statistics.mean(taken[1:])  # the first warms up


def _fill(generator: TokenGenerator) -> None:
    """Give the caches memory: what was never written costs nothing to read."""
    own = getattr(generator.decoder, "_own", None)
    if own is None:
        for layer in generator.decoder.layers:  # type: ignore[union-attr]
            layer.cache.fill_(0.01)
        return
    for cache in (own.keys, own.values):
        cache[:] = 0x3C00 if cache.dtype == np.uint16 else 0.01


if __name__ == "__main__":
    sys.exit(main())
