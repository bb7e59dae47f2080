"""What `--dry_run` says of the time of an image, beside the CPU seconds that it takes, with one thread.

python -m benchmarks.estimates            the embedded model and the sizes of f16 and DALL·E mini: half an hour
python -m benchmarks.estimates --quick    the embedded model, few images: shows that the script works
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.generate_pipeline import MINI
from benchmarks.support import machine, random_generator
from benchmarks.support.photographs import photograph

PHOTOS = 256
SIDES = (400, 500)
# A job, and two numbers of rows, whose difference leaves out what a job costs beside its images.
EMBEDDED = {
    "encode, embedded model": ("encode --input photos", 64, 256),
    "decode, embedded model": ("decode --input small.parquet --model emoji", 64, 256),
    "generate, embedded model": ("generate --input prompts.txt", 64, 192),
}
LARGE = {
    "encode, f16": ("encode --input photos --model mini/vqgan", 2, 10),
    "encode, f16, bfloat16": ("encode --input photos --model mini/vqgan --dtype bfloat16", 2, 6),
    "decode, f16": ("decode --input large.parquet --model mini/vqgan", 2, 10),
    "generate, mini": ("generate --input prompts.txt --model mini --batch_size 8", 8, 16),
    "generate, mini, int8": ("generate --input prompts.txt --model mini --batch_size 8 --dtype int8", 8, 16),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the embedded model, eight images")
    parser.add_argument("--only", metavar="WORD", default="", help="jobs that have this in their name")
    args = parser.parse_args(argv)
    print(f"{machine.describe()}\n\n| job | CPU seconds an image | --dry_run | ratio |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_inputs(folder, args.quick)
        for job, (words, few, many) in (EMBEDDED if args.quick else {**EMBEDDED, **LARGE}).items():
            if args.only in job:
                few, many = (4, 8) if args.quick else (few, many)
                took = (_cpu_seconds(folder, words, many) - _cpu_seconds(folder, words, few)) / (many - few)
                told = _told(folder, words, many)
                print(f"| {job} | {took:.4f} | {told:.4f} | {told / took:.2f} |", flush=True)
    return 0


def _write_inputs(folder: Path, quick: bool) -> None:
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(8 if quick else PHOTOS):
        (folder / "photos" / f"{number:03}.jpg").write_bytes(photograph(random, SIDES))
    random_generator.write_prompts(folder / "prompts.txt", PHOTOS)
    _run(folder, "encode --input photos --output tokens")
    (folder / "tokens/data/00000.parquet").rename(folder / "small.parquet")
    if not quick:
        random_generator.write_generator(folder / "mini", MINI)
        random_generator.write_tokens(folder / "large.parquet", 16, MINI)


def _cpu_seconds(folder: Path, words: str, rows: int) -> float:
    """Of a job with one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(folder, f"{words} --limit {rows} --output out --overwrite --threads_per_worker 1")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _told(folder: Path, words: str, rows: int) -> float:
    """The seconds of an image that `--dry_run` expects."""
    printed = _run(folder, f"{words} --limit {rows} --output new --threads_per_worker 1 --dry_run --json")
    pending = json.loads(printed)["pending"]
    return float(pending["worker_seconds"] / pending["images"])


def _run(folder: Path, words: str) -> str:
    command = [sys.executable, "-m", "pipelines", *shlex.split(words), "--device", "cpu"]
    here = {**os.environ, "PYTHONPATH": str(machine.ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=here)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
