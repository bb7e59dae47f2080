"""All that is to be known of vqbeam on a GPU, in one command of at most eight minutes and without network.

python -m benchmarks.gpu_check                      everything, on the GPU of this machine
python -m benchmarks.gpu_check --only encode oom    some parts
python -m benchmarks.gpu_check --output FOLDER      puts gpu_check.md and gpu_check.json there
python -m benchmarks.gpu_check --quick              toy sizes, on a CPU too: shows that the script works

Each part runs in a process of its own for a bounded time. One that fails is reported with its reason, and the others
run all the same; the exit code is 1 then. Without Beam, or a peer, the parts that need it are left out and named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.support import gpu_networks, gpu_promises, machine
from benchmarks.support.gpu_parts import Absent, Part, Row, Setting

SECONDS = 480.0  # of the whole
QUICK_SECONDS = 60.0  # of a part at toy size
PARTS: tuple[Part, ...] = (*gpu_promises.PARTS, *gpu_networks.PARTS)


@dataclass
class Result:
    """How a part went: "ok", "absent" if something it needs is not there, "failed" or "cut off"."""

    part: str
    state: str = "failed"
    seconds: float = 0.0
    reason: str = ""
    rows: list[Row] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: a GPU if there is one")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART", help="these parts")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole (default %(default)g)")
    parser.add_argument("--output", type=Path, help="folder for the two reports")
    args = parser.parse_args(argv)
    deadline = time.monotonic() + args.seconds
    found = _in_a_process(_devices, (args.device,), 60.0)
    if found.state != "ok":
        print(f"no device: {found.reason}", file=sys.stderr)
        return 1
    about = found.rows[0].note
    device = found.rows[0].what
    setting = Setting(device, args.quick or device == "cpu")
    if setting.quick:
        torch.set_num_threads(1)  # for all parts: toys only make threads wait, and others may be at work beside
    found_all = list(results([part for part in PARTS if not args.only or part.name in args.only], setting, deadline))
    text = report(about, found_all)
    print(text)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "gpu_check.md").write_text(text, encoding="utf-8")
        whole = {"machine": about, "quick": setting.quick, "parts": [asdict(result) for result in found_all]}
        (args.output / "gpu_check.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return int(any(result.state in ("failed", "cut off") for result in found_all))


def results(parts: Iterable[Part], setting: Setting, deadline: float) -> Iterator[Result]:
    """How each part goes, one after the other."""
    for part in parts:
        left = deadline - time.monotonic()
        bound = min(QUICK_SECONDS if setting.quick else part.seconds, left)
        if left <= 0:
            yield Result(part.name, "cut off", 0.0, "no time was left")
            continue
        result = _in_a_process(part.run, (setting,), bound)
        result.part = part.name
        if part.name == "peaks":
            setting.peaks.update({row.what: row.value for row in result.rows if row.unit in ("FLOP/s", "B/s")})
        print(f"{part.name}: {result.state}, {result.seconds:.1f} s {result.reason}", file=sys.stderr, flush=True)
        yield result


def _devices(asked: str | None) -> Iterator[Row]:
    """The device as a row: its name, and what it is. In a process of its own: CUDA does not outlive a fork."""
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    yield Row(device, 0.0, "", machine.describe(torch.device(device)))


def _in_a_process(work: Callable[..., Iterable[Row]], arguments: tuple[Any, ...], seconds: float) -> Result:
    """Runs a part in a fork, so that it can be ended, and what it has measured by then is kept."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, arguments, there))
    began = time.monotonic()
    process.start()
    there.close()
    result = Result("", "cut off", reason=f"it took more than {seconds:.0f} s")
    try:
        while here.poll(max(0.0, began + seconds - time.monotonic())):
            kind, value = here.recv()
            if kind == "row":
                result.rows.append(value)
            else:
                result.state, result.reason = kind, value
                break
    except EOFError:
        result.state, result.reason = "failed", "the process ended abruptly"
    process.join(1.0)
    with suppress(ProcessLookupError):  # with the processes that it has begun
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    result.seconds = time.monotonic() - began
    return result


def _work(work: Callable[..., Iterable[Row]], arguments: tuple[Any, ...], to: Connection) -> None:
    os.setsid()
    try:
        for row in work(*arguments):
            to.send(("row", row))
        to.send(("ok", ""))
    except Absent as error:
        to.send(("absent", str(error)))
    except Exception as error:  # whatever it is, it is one part's
        traceback.print_exc()
        to.send(("failed", f"{type(error).__name__}: {error}"[:500]))


def report(about: str, found: Iterable[Result]) -> str:
    """Markdown: a table of the parts, and one of all they found."""
    found = list(found)
    lines = [about, "", "| part | how | s | why |", "|---|---|---|---|"]
    lines += [f"| {one.part} | {one.state} | {one.seconds:.1f} | {_cell(one.reason)} |" for one in found]
    lines += ["", "| part | what | value | unit | note |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.part} | {row.what} | {_number(row.value)} | {row.unit} | {_cell(row.note)} |"
        for one in found
        for row in one.rows
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _number(value: float) -> str:
    return f"{value:.3g}" if value >= 1e5 else f"{value:,.2f}" if value % 1 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
