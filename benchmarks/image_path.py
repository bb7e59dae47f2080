"""From the bytes of a tar to the uint8 batch of a model of 256 pixels: images/s of a core, without the model.

python -m benchmarks.image_path                     some minutes
python -m benchmarks.image_path --against FOLDER    beside another version, checked out there
python -m benchmarks.image_path --other_pillow bin/python    also the Pillow of that Python, such as pillow-simd
python -m benchmarks.image_path --quick             a few images: shows that the script works
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.peers.resizers import decoders, resizers
from benchmarks.support import machine
from benchmarks.support.image_path_alone import ImagePath
from benchmarks.support.photographs import drawn
from benchmarks.support.rounds import ratio
from transforms.image_formats import READERS
from transforms.image_options import ImageOptions
from transforms.images import box_to_fit, decode_image
from transforms.inputs.formats import read_slices
from transforms.resampling import Box, Resampling, resize

SIDE = 256
ALONE = Path(__file__).parent / "support" / "image_path_alone.py"
PILLOW_ALONE = Path(__file__).parent / "peers" / "pillow_alone.py"


class Case(NamedTuple):
    """Images of one kind; `many` are in its tar."""

    kind: str
    width: int
    height: int
    many: int

    def __str__(self) -> str:
        return f"{self.kind} {self.width} x {self.height}"


CASES = (
    Case("JPEG", 450, 450, 256),
    Case("JPEG", 512, 384, 256),
    Case("JPEG", 1280, 960, 64),
    Case("JPEG", 3000, 2000, 24),
    Case("PNG", 512, 384, 128),
    Case("WebP", 512, 384, 128),
)
DISTINCT = 6


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_path", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of few images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", metavar="FOLDER", type=Path, help="a checkout of another version")
    parser.add_argument("--other_pillow", metavar="PYTHON", type=Path, help="a Python with another Pillow")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rounds, cases = (1, [case._replace(many=4) for case in CASES[:2]]) if args.quick else (args.rounds, CASES)
    print(f"{machine.describe()}\n")
    with tempfile.TemporaryDirectory() as folder:
        files = {case: images(case) for case in cases}
        for case in cases:
            write_tar(Path(folder) / f"{case}.tar", files[case], case.many)
        versions = {"here": machine.ROOT} | ({"there": args.against.absolute()} if args.against else {})
        print_paths(Path(folder), cases, versions, rounds, warm=not args.quick)
        print_lock(Path(folder), cases, rounds)
        print_stages(Path(folder), files, rounds)
        print_resizers(Path(folder), files, rounds, args.other_pillow)
        print_decoders(files, rounds)
    return 0


def print_lock(folder: Path, cases: Sequence[Case], rounds: int) -> None:
    """Until how many images/s the threads of a process cannot be held up by Python's lock, which they share."""
    print("\n| images | ms of a core | with the lock at most | images/s that it allows at least |\n|" + "---|" * 4)
    for case in (case for case in cases if case.kind == "JPEG"):
        tar = str((folder / f"{case}.tar").absolute())
        command = [sys.executable, "-m", "benchmarks.support.lock_share", tar, *map(str, (SIDE, case.many, rounds))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=machine.ROOT, env=environment)
        whole, locked = json.loads(done.stdout)
        print(f"| {case} | {1e3 * whole:.2f} | {1e3 * locked:.2f} | {1 / locked:.0f} |", flush=True)


def images(case: Case) -> list[bytes]:
    """Of which a few differ."""
    random, found = np.random.default_rng(0), []
    for _ in range(min(DISTINCT, case.many)):
        buffer = io.BytesIO()
        drawn(random, case.width, case.height).save(buffer, case.kind, quality=90)
        found.append(buffer.getvalue())
    return found


def write_tar(path: Path, files: Sequence[bytes], count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            data = files[number % len(files)]
            member = tarfile.TarInfo(f"{number:06d}.{path.name.partition(' ')[0].lower()}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


class Alone:
    """A process of one version that takes the images of a tar to batches, as often as it is asked."""

    def __init__(self, home: Path, tar: Path, warm: bool) -> None:
        environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(ALONE), str(tar), str(SIDE), *(["warm"] if warm else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tar.parent,
        )  # fmt: skip
        self.run(1)

    def run(self, threads: int) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(threads, file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.communicate()


def print_paths(folder: Path, cases: Sequence[Case], versions: dict[str, Path], rounds: int, warm: bool) -> None:
    """Images/s of one core by processor time, and of one and two decode threads by the clock."""
    print("| images | version | images/s a core | beside there | 1 thread | 2 threads | 2 beside 1 |\n|" + "---|" * 7)
    for case in cases:
        alone = {name: Alone(home, folder / f"{case}.tar", warm) for name, home in versions.items()}
        seen: dict[tuple[str, int], list[dict[str, float]]] = {
            (name, threads): [] for threads in (1, 2) for name in versions
        }
        for _ in range(rounds):
            for (name, threads), found in seen.items():
                found.append(alone[name].run(threads))
        for process in alone.values():
            process.close()
        rates = {key: [1 / one["clock"] for one in found] for key, found in seen.items()}
        cores = {name: [1 / one["processor"] for one in seen[name, 1]] for name in versions}
        for name in versions:
            beside = f"{ratio(cores[name], cores['there']):.2f}" if "there" in versions else ""
            clock = " | ".join(f"{statistics.median(rates[name, threads]):.0f}" for threads in (1, 2))
            both = ratio(rates[name, 2], rates[name, 1])
            print(
                f"| {case} | {name} | {statistics.median(cores[name]):.0f} | {beside} | {clock} | {both:.2f} |",
                flush=True,
            )


def milliseconds(call: Callable[[], object], times: int) -> float:
    """Of the processor: the median, which is not that of a moment at which others had it."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return 1e3 * statistics.median(seconds)


def print_stages(folder: Path, files: dict[Case, list[bytes]], rounds: int) -> None:
    """One thread, milliseconds of the processor an image."""
    stages = ("read the tar", "open, limits", "decode", "resize", "all of decode_image", "to the batch")
    print(f"\n| images | {' | '.join(f'{name}, ms' for name in stages)} |\n|" + "---|" * (1 + len(stages)))
    while rounds > 1 and not resize.ready:
        decode_image(files[CASES[0]][0], ImageOptions(SIDE))
    for case, datas in files.items():
        spent = stages_of(case, ImagePath(str(folder / f"{case}.tar"), SIDE), datas[0], rounds)
        print(f"| {case} | {' | '.join(f'{one:.2f}' for one in spent)} |", flush=True)


def stages_of(case: Case, path: ImagePath, data: bytes, rounds: int) -> tuple[float, ...]:
    options, times = ImageOptions(SIDE), 5 * rounds
    image, box = loaded(data, options)
    pixels = [decode_image(data, options).pixels] * 64

    def read() -> None:
        for _ in read_slices(path.slices, path.schema):
            pass

    opened = milliseconds(lambda: box_to_fit(READERS[case.kind](io.BytesIO(data)), options), times)
    return (
        milliseconds(read, times) / case.many,
        opened,
        milliseconds(lambda: loaded(data, options), times) - opened,
        milliseconds(lambda: resize(image, (SIDE, SIDE), Resampling.LANCZOS, box), times),
        milliseconds(lambda: decode_image(data, options), times),
        milliseconds(lambda: np.stack(pixels), times) / len(pixels),
    )


def loaded(data: bytes, options: ImageOptions) -> tuple[Image.Image, Box]:
    """An image as it is before it is resized, and its square in the middle."""
    kind = "JPEG" if data[:2] == b"\xff\xd8" else "PNG" if data[:1] == b"\x89" else "WebP"
    image = READERS[kind](io.BytesIO(data))
    _, _, width, height = box_to_fit(image, options)
    image.load()
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image, (left, top, left + side, top + side)


def print_resizers(folder: Path, files: dict[Case, list[bytes]], rounds: int, other: Path | None) -> None:
    """Beside Pillow's Lanczos: time, and how far the pixels are from its."""
    print("\n| JPEG | resized by | ms | beside Pillow | PSNR, dB | largest difference | values that differ |")
    print("|" + "---|" * 7)
    for case, datas in files.items():
        if case.kind != "JPEG":
            continue
        image, box = loaded(datas[0], ImageOptions(SIDE))
        pillow, *others = resizers().items()
        spent = {name: milliseconds(lambda: call(image, box, SIDE), 5 * rounds) for name, call in (pillow, *others)}  # noqa: B023
        made = {name: call(image, box, SIDE) for name, call in (pillow, *others)}
        if other is not None:
            image.save(folder / "image.png")
            command = [other, PILLOW_ALONE, folder / "image.png", SIDE, *box, folder / "made.npy"]
            said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
            spent["the other Pillow"], made["the other Pillow"] = 1e3 * float(said), np.load(folder / "made.npy")
        for name, seconds in spent.items():
            apart = np.abs(made[name].astype(int) - made[pillow[0]])
            error = float((apart**2).mean())
            decibels = f"{10 * np.log10(255**2 / error):.1f}" if error else "equal"
            beside = f"{seconds:.2f} | {spent[pillow[0]] / seconds:.1f}"
            differ = f"{decibels} | {apart.max()} | {(apart > 0).mean():.2%}"
            print(f"| {case.width} x {case.height} | {name} | {beside} | {differ} |", flush=True)


def print_decoders(files: dict[Case, list[bytes]], rounds: int) -> None:
    """JPEGs in full."""
    print("\n| JPEG | decoded by | ms | beside Pillow | pixels |\n|" + "---|" * 5)
    for case, datas in files.items():
        if case.kind != "JPEG":
            continue
        found, first, expected = decoders(), 0.0, None
        for name, call in found.items():
            spent, pixels = milliseconds(lambda: call(datas[0]), 3 * rounds), call(datas[0])  # noqa: B023
            first, expected = first or spent, pixels if expected is None else expected
            same = "equal" if np.array_equal(pixels, expected) else "others"
            print(f"| {case.width} x {case.height} | {name} | {spent:.2f} | {first / spent:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
