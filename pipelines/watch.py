"""`vqbeam watch DIR`: the status of a job, drawn again until it is complete."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

from pipelines.command import Command
from pipelines.flag_values import number
from pipelines.status import add_flags, lines
from pipelines.terminal import say

EVERY = 5.0  # seconds
ERASE = "\x1b[H\x1b[J"  # from the upper left corner on


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Returns 0 when the job is complete."""
    while True:
        told, complete = lines(args)
        if sys.stdout.isatty():
            sys.stdout.write(ERASE)
        say(*told, flush=True)
        if complete:
            return 0
        time.sleep(args.every)


def add_watch_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)
    parser.add_argument(
        "--every",
        type=partial(number, kind=float, low=0.1, high=86400, wanted="a number of seconds from 0.1 to 86400"),
        default=EVERY,
        metavar="SECONDS",
        help=f"between two looks (default {EVERY:g}); each lists the marks",
    )


COMMAND = Command(
    "Show how far the job in an output folder has come, again and again until it is complete; Ctrl-C ends it.",
    add_watch_flags,
    run,
    examples=("vqbeam watch tokens", "vqbeam watch gs://my-bucket/tokens --every 60"),
)
