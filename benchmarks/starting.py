"""CPU seconds of a small job outside its model: to the first line, to the first committed shard, the whole, and of a
rerun that is refused.

python -m benchmarks.starting                     the 200 images of the sample, seven times: two minutes
python -m benchmarks.starting --against COMMIT    beside another version, in turns
python -m benchmarks.starting --quick             eight images, once: shows that the script works
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.support import machine

SAMPLE = machine.ROOT / "examples/emoji/sample"
LOOK_SECONDS = 0.01  # between two looks for the first shard
TICKS = os.sysconf("SC_CLK_TCK")
FIGURES = ("first line, s of the clock", "first shard", "whole", "model alone", "refused rerun")
MODEL_ALONE = Path(__file__).parent / "support" / "model_alone.py"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starting", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="eight images, once")
    parser.add_argument("--times", type=int, default=7, help="runs of each version")
    parser.add_argument("--against", metavar="COMMIT", help="another version")
    args = parser.parse_args(argv)
    times, images = (1, 8) if args.quick else (args.times, 200)
    print(f"{machine.describe()}\n")
    with tempfile.TemporaryDirectory() as folder, _versions(args.against, Path(folder)) as homes:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in homes}
        for number in range(times):
            for name, home in homes.items():
                found[name].append(_once(home, Path(folder, f"{name}-{number}"), images))
    print("| version | " + " | ".join(FIGURES) + " | first shard, outside the model | whole, outside the model |")
    print("|" + "---|" * (len(FIGURES) + 3))
    outside = {}
    for name, rows in found.items():
        line, shard, whole, model, refused = map(statistics.median, zip(*rows, strict=True))
        outside[name] = (line, shard - model, whole - model, refused)
        figures = (line, shard, whole, model, refused, shard - model, whole - model)
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in figures) + " |")
    if args.against:
        ratios = (here / there for here, there in zip(outside["here"], outside["there"], strict=True))
        names = ("first line", "first shard outside the model", "whole outside the model", "refused rerun")
        print("\nhere / there: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in zip(names, ratios, strict=True)))
    return 0


@contextmanager
def _versions(commit: str | None, folder: Path) -> Iterator[dict[str, Path]]:
    """The folders of the code by name; another commit's is unpacked."""
    homes = {"here": machine.ROOT}
    if commit:
        command = ["git", "-C", str(machine.ROOT), "archive", commit]
        packed = subprocess.run(command, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as code:
            code.extractall(folder / "there", filter="data")
        homes["there"] = folder / "there"
    yield homes


def _once(home: Path, output: Path, images: int) -> tuple[float, ...]:
    """The `FIGURES` of one job."""
    flags = ["encode", "--input", f"{SAMPLE}/*.tar", "--output", str(output), "--limit", str(images)]
    before = _children()
    line, shard = _watched(home, flags, lambda: any(output.glob("data/*.parquet")))
    whole = _children() - before
    model = float(subprocess.run(_python(MODEL_ALONE, images), cwd=home, capture_output=True, check=True).stdout)
    before = _children()
    refused = subprocess.run(_python("-m", "pipelines", *flags, "--image_size", 32), cwd=home, capture_output=True)
    if refused.returncode != 2:
        raise RuntimeError(f"not refused: {refused.stderr.decode()}")
    return line, shard, whole, model, _children() - before


def _watched(home: Path, flags: list[str], committed: Callable[[], bool]) -> tuple[float, float]:
    """Seconds until the command's first line, and its CPU seconds until its first shard is committed."""
    began = time.perf_counter()
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as screen:
        command = subprocess.Popen(_python("-m", "pipelines", *flags), cwd=home, stdout=write_end, stderr=write_end)
        os.close(write_end)
        said = screen.readline()
        line = time.perf_counter() - began
        while not committed() and command.poll() is None:
            time.sleep(LOOK_SECONDS)
        shard = _cpu_of(command.pid)
        said += screen.read()
    if command.wait():
        raise RuntimeError(f"the job failed: {said.decode()}")
    return line, shard


def _python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def _children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process that lives, and of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return sum(map(int, fields[11:15])) / TICKS + sum(_cpu_of(int(child)) for child in children)


if __name__ == "__main__":
    sys.exit(main())
