"""`vqbeam report DIR`: one page about what a job wrote, `report.html`; the flag `--report` ends a job with it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines import flags
from pipelines.command import Command, version
from pipelines.flag_values import number
from pipelines.screen import failures
from pipelines.stages import stage
from pipelines.status import add_flags, open_output
from pipelines.terminal import say
from transforms import storage
from transforms.errors import ShardFailed, UsageError, size_text
from transforms.ledger.folder import REPORT
from transforms.ledger.plan import Plan
from transforms.ledger.types import shard_name

if TYPE_CHECKING:
    from models.image_tokenizer import ImageTokenizer

SAMPLES, MOST_SAMPLES = 24, 500
BATCH = 1  # rows whose codes are decoded at once: some of a page are few


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Writes the page and says where; returns 0."""
    output, plan, _ = open_output(args)
    uri = storage.absolute(args.output) if args.output else storage.join(output, REPORT)
    say(write_report(output, plan, uri, args.model_cache, args.samples, args.seed))
    return 0


def report_at_the_end(output: str, plan: Plan, cache: str) -> None:
    """Writes the page of a job that has ended, whose code is not changed by what may fail here."""
    try:
        say(f"  report     {write_report(output, plan, storage.join(output, REPORT), cache)}")
    except (ShardFailed, UsageError) as error:
        say(f"warning: no report: {error}", file=sys.stderr)


def write_report(output: str, plan: Plan, uri: str, cache: str, samples: int = SAMPLES, seed: int = 0) -> str:
    """Writes the page of an output folder to `uri`, and returns where it is in words. Raises `UsageError` and
    `ShardFailed`."""
    with stage("Making the report"):
        from transforms.report.gather import Asked, gather
        from transforms.report.page import render

        asked = Asked(uri.rpartition("/")[0], samples, seed, partial(_tokenizer, cache=cache))
        report = gather(output, plan, asked)
        words = ["vqbeam", "report", output, "--samples", str(samples), "--seed", str(seed)]
        failed = [f"shard {shard_name(shard)} failed in the last run: {reason}" for shard, reason in failures(output)]
        page = render(report, shlex.join(words), version(otherwise=""), failed).encode()
        storage.put_bytes(page, uri)
    return f"{uri} ({size_text(len(page))})"


def _tokenizer(made: Mapping[str, Any], cache: str) -> ImageTokenizer:
    """The tokenizer that a table names, on the CPU. Raises `ModelError` and `UsageError`."""
    from pipelines.process import cores
    from pipelines.request import Settings, TokenizerChoice

    if "model_source" not in made:
        raise UsageError("its tables do not say which model made the codes")
    choice = TokenizerChoice(made["model_source"], cache).made(made)
    stated = made.get("codebook_id")
    if stated not in (None, choice.open().codebook_id()):
        raise UsageError(f"{made['model_source']} is another model now than the one that made the codes")
    return choice.settings(Settings("cpu", "float32", BATCH, cores(), 1)).open()


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)
    parser.add_argument("--output", metavar="FILE", help=f"where the page goes (default {REPORT} in DIR)")
    parser.add_argument(
        "--samples",
        type=partial(number, kind=int, low=1, high=MOST_SAMPLES, wanted=f"a number from 1 to {MOST_SAMPLES}"),
        default=SAMPLES,
        metavar="N",
        help=f"rows or prompts that it shows (default {SAMPLES})",
    )
    parser.add_argument(
        "--seed",
        type=partial(number, kind=int, low=0, high=2**63 - 1, wanted="a whole number from 0 on"),
        default=0,
        metavar="N",
        help="which ones, and which shards are looked at (default 0)",
    )
    flags.add_model_flags(parser.add_argument_group("model that decodes"), "model_cache")


COMMAND = Command(
    "Write one page about what a job wrote, with no link to the network: counts, rejected rows with examples, sizes, "
    "captions, use of codes, speed, and a random sample of images. Safe while the job runs.",
    add_report_flags,
    run,
    examples=(
        "vqbeam report tokens",
        "vqbeam report images --samples 48 --seed 1 --output look.html",
    ),
)
