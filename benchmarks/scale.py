"""Resume and summary of jobs of very many shards: requests, CPU seconds and peak memory of the launcher, and what all
shards of a stored plan take.

python -m benchmarks.scale                    100,000 and a million shards, of which 10, 50, 90 and 99 % are done
python -m benchmarks.scale --against FOLDER   beside another version, checked out there: some hours
python -m benchmarks.scale --quick            some thousand shards: shows that the script works
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support import machine

FULL, QUICK = (100_000, 1_000_000), (3_000,)
PERCENT = (10, 50, 90, 99)
ALONE = Path(__file__).parent / "support" / "scale_alone.py"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few shards")
    parser.add_argument("--shards", type=int, nargs="+", help="shards of the jobs")
    parser.add_argument("--percent", type=int, nargs="+", default=PERCENT, help="of the shards are done")
    parser.add_argument("--against", metavar="FOLDER", type=Path, help="a checkout of another version")
    args = parser.parse_args(argv)
    versions = {"here": machine.ROOT} | ({"there": args.against.absolute()} if args.against else {})
    print(f"{machine.describe()}\n")
    sizes = args.shards or (QUICK if args.quick else FULL)
    print("| shards | version | plan, bytes a shard | CPU s to read it | MiB for it |\n|" + "---|" * 5)
    for shards in sizes:
        for name, home in versions.items():
            one = _measure(home, shards)
            figures = f"{one['bytes']:.1f} | {one['seconds']:.1f} | {one['mib']:.0f}"
            print(f"| {shards:,} | {name} | {figures} |", flush=True)
    print("\n| shards | done, % | version | requests | workers', for digests | CPU s | peak MiB |\n|" + "---|" * 7)
    for shards in sizes:
        for percent in args.percent:
            found = {name: _measure(home, shards, shards * percent // 100) for name, home in versions.items()}
            for name, one in found.items():
                figures = f"{one['requests']:,} | {one['of_workers']:,} | {one['seconds']:.1f} | {one['mib']:.0f}"
                print(f"| {shards:,} | {percent} | {name} | {figures} |", flush=True)
            if args.against:
                ratios = " | ".join(
                    f"1/{found['there'][name] / found['here'][name]:.1f}" for name in ("requests", "seconds", "mib")
                )
                print(f"| {shards:,} | {percent} | ratio | {ratios.replace(' | ', ' | | ', 1)} |", flush=True)
    return 0


def _measure(home: Path, *case: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ALONE), folder, *map(str, case)]
        environment = {**os.environ, "PYTHONPATH": str(home), "STORAGE_EMULATOR_HOST": "http://localhost:1"}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if ended.returncode:
        raise RuntimeError(f"{case[0]} shards ended with {ended.returncode}:\n{ended.stderr}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
