"""A command for the tests of launching and stopping, run as a program so that it receives real signals.

`python polling_run.py poll --output DIR ...` is dispatched like a command of vqbeam.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pipelines.__main__ as main_module
from pipelines.command import COMMANDS, Command
from pipelines.progress import progress
from pipelines.sample import Expected
from pipelines.scratch import scratch_folder


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--grace", type=float, default=100)
    parser.add_argument("--plan_forever", action="store_true")
    parser.add_argument("--overwrite", action="store_true")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    import apache_beam as beam
    from waiting_shard import WaitInShard

    from pipelines.launch import run_pipeline
    from pipelines.local_workers import local_workers

    with scratch_folder(args.output) as scratch:
        Path(args.output, "planning").touch()
        while args.plan_forever:
            time.sleep(0.02)

        def build(pipeline: beam.Pipeline) -> None:
            shards = pipeline | beam.Create(range(args.shards)) | beam.Reshuffle()
            _ = shards | beam.ParDo(WaitInShard(args.output, scratch, args.deaf))

        with progress(scratch, Expected(args.shards, rows=args.shards * 100)):
            workers = local_workers(beam_args, args.workers)
            result = run_pipeline(build, beam_args, workers=workers, scratch=scratch, grace=args.grace)
        return result.exit_code


COMMAND = Command("Waits in shards.", add_flags, run, launches=True)

if __name__ == "__main__":
    COMMANDS["poll"] = "wait in shards"
    sys.modules["pipelines.poll"] = sys.modules["__main__"]
    main_module.main()
