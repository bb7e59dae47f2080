"""`vqbeam errors DIR`: the rows that a job rejected, each with its reason."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipelines.command import Command
from pipelines.flags import COUNT
from pipelines.screen import rejected_line
from pipelines.status import add_flags, open_output
from pipelines.terminal import say
from transforms.errors import ROW_ERRORS
from transforms.ledger.rejected import rejected_rows
from transforms.ledger.totals import most_common, total_of

SHOWN = 20


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Prints the rows on stdout and how many there are on stderr; returns 0."""
    output, _, _ = open_output(args)
    limit = None if args.json and args.limit is None else args.limit or SHOWN
    shown = 0
    totals = total_of(output)
    for row in islice(_of_codes(rejected_rows(output, totals.shards_with_rejected), args.code), limit):
        shown += 1
        say(json.dumps(row) if args.json else rejected_line(row))
    counts = {code: count for code, count in totals.errors.items() if not args.code or code in args.code}
    every = sum(counts.values())
    of = f"{shown:,} of {every:,} rejected rows" if every else "no rejected rows"
    kinds = ", ".join(f"{code} {count:,}" for code, count in most_common(counts))
    more = f"; --limit {every} shows all" if shown < every and not args.json else ""
    say(f"{output}: {of}{f': {kinds}' if kinds else ''}{more}", file=sys.stderr)
    return 0


def _of_codes(rows: Iterator[dict[str, Any]], codes: list[str] | None) -> Iterator[dict[str, Any]]:
    return (row for row in rows if not codes or row["error"] in codes)


def add_errors_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)
    parser.add_argument(
        "--code",
        nargs="+",
        choices=ROW_ERRORS,
        metavar="CODE",
        help="only these, such as broken_image",
    )
    parser.add_argument("--limit", **COUNT, help=f"rows to print (default {SHOWN}, all with --json)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with all of each text")


COMMAND = Command(
    "Print the rows that the job in an output folder rejected, with the reason of each; safe while it runs.",
    add_errors_flags,
    run,
    examples=(
        "vqbeam errors tokens",
        "vqbeam errors tokens --code broken_image --json",
    ),
)
