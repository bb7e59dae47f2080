"""Peak memory of planning folders of many images, and what ten million would take.

python -m benchmarks.planning                         all cases, with 100,000 and a million images
python -m benchmarks.planning --only "one folder"     cases with one of these words in their names
python -m benchmarks.planning --quick                 a few images, no slope: shows that the script works
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.planning_alone import image_name

MANY = 10_000_000
ALLOWED = 1024.0  # MiB of the whole process with so many
LINKS = 30_000  # names that share a file: file systems limit them
FULL, QUICK = (1, 100_000, 1_000_000), (200,)


@dataclass(frozen=True)
class Case:
    """`folders`, or one for all images; `texts` beside each image."""

    name: str
    folders: bool = True
    texts: bool = False
    store: bool = False


CASES = (
    Case("one folder", folders=False),
    Case("folders of 1,000"),
    Case("folders of 1,000, a text beside each", texts=True),
    Case("a bucket", store=True),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few images")
    parser.add_argument(
        "--only", metavar="WORDS", nargs="+", default=[""], help="cases with one of these in their name"
    )
    parser.add_argument("--most", type=int, help="images instead of a million")
    args = parser.parse_args(argv)
    counts = QUICK if args.quick else FULL
    if args.most:
        counts = (*counts[:-1], args.most)
    print(f"{machine.describe()}\n")
    titles = " | ".join(f"{count:,}" for count in counts)
    print(f"| what | {titles} images, MiB | bytes an image | {MANY:,}, MiB | seconds |\n|{'---|' * (len(counts) + 4)}")
    within = True
    for case in CASES:
        if not any(words in case.name for words in args.only):
            continue
        rows: dict[str, list[tuple[float, float]]] = {}
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                for run, found in _runs(case, count, Path(name)).items():
                    rows.setdefault(run, []).append(found)
        for run, measured in rows.items():
            peaks = [peak for peak, _ in measured]
            slope = (peaks[-1] - peaks[-2]) / (counts[-1] - counts[-2]) if len(counts) > 1 else math.nan
            projected = peaks[-1] + slope * (MANY - counts[-1])
            within &= projected <= ALLOWED
            shown = " | ".join(f"{peak:.0f}" for peak in peaks)
            print(
                f"| {case.name}, {run} | {shown} | {slope * 2**20:.0f} | {projected:.0f} | {measured[-1][1]:.0f} |",
                flush=True,
            )
    if args.quick:
        return 0
    print(f"\n{'All' if within else 'NOT all'} would take at most {ALLOWED:.0f} MiB with {MANY:,} images.")
    return 0 if within else 1


def _runs(case: Case, count: int, folder: Path) -> dict[str, tuple[float, float]]:
    """MiB and seconds of each way to plan."""
    source, output = folder / "images", folder / "out"
    half = max(1, count // 2)
    target = "gs://bucket/images" if case.store else str(source)

    def run(images: int, *flags: str, to: Path = output) -> tuple[float, float]:
        words = ["encode", "--input", target, "--output", str(to), "--model", "emoji", "--device", "cpu", *flags]
        return _peak(folder / "peak", images, words)

    (folder / "file").write_bytes(b"")
    if not case.store:
        _write_images(source, range(half), case)
    run(half)
    if not case.store:
        _write_images(source, range(half, count), case)
    found = {"--extend": run(count, "--extend"), "again after that": run(count)}
    found |= {"--dry_run": run(count, "--dry_run", to=folder / "other"), "new plan": run(count, to=folder / "other")}
    found["again"] = run(count, to=folder / "other")
    return found


def _write_images(folder: Path, numbers: Sequence[int], case: Case) -> None:
    """Empty files that share their content, which planning does not look at."""
    origin = ""
    made = ""
    for place, number in enumerate(numbers):
        path = f"{folder}/{image_name(number)}" if case.folders else f"{folder}/{os.path.basename(image_name(number))}"
        parent = os.path.dirname(path)
        if parent != made:
            os.makedirs(parent, exist_ok=True)
            made = parent
        names = [path, *([f"{path.removesuffix('.jpg')}.txt"] if case.texts else [])]
        for name in names:
            if place % LINKS == 0:
                with open(name, "xb"):
                    pass
                os.utime(name, ns=(time.time_ns(), time.time_ns()))
                origin = name
            else:
                os.link(origin, name)


def _peak(result: Path, images: int, words: list[str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.support.planning_alone", str(result), str(images), *words]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vqbeam {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return int(result.read_text(encoding="ascii")) / 1024, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
