"""`vqbeam verify DIR`: read everything that a job wrote and compare it with its marks."""

from __future__ import annotations

import argparse
import json
import sys

from tqdm import tqdm

from pipelines.command import Command
from pipelines.keys import repeated_keys
from pipelines.status import add_flags, copy_problems, open_output
from pipelines.terminal import say
from transforms import storage
from transforms.errors import OutputDamaged, amount
from transforms.ledger.folder import FILE_FOLDERS, SUCCESS
from transforms.ledger.plan import RESTORE, Plan, write_copy
from transforms.ledger.remove import remove_shard
from transforms.ledger.stored_shards import StoredShards
from transforms.ledger.totals import total_of
from transforms.ledger.verify import found_problems
from transforms.outputs.layout import main_folders


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Returns 0 if all is well, 1 if something is missing, damaged or not done; one line on stdout for each. Keys that
    repeat are told if all is well. With `--repair` the objects of damaged shards are removed, so that the next run does
    them again."""
    output, plan, done = open_output(args)
    if sum(1 for _ in StoredShards(output, plan)) != plan.shards:  # reads all of the plan
        raise OutputDamaged(f"the plan of {output} lacks shards: {RESTORE}")
    problems = copy_problems(output)
    if problems and args.repair:
        write_copy(output, plan)
    tell = (lambda problem: None) if args.json else say
    for problem in problems:
        tell(problem)
    damaged: dict[int, None] = {}
    with tqdm(total=done, unit=" shards", disable=not sys.stderr.isatty(), leave=False) as bar:
        for shard, problem in found_problems(output, plan, main_folders(), lambda number: bar.update(1)):
            problems.append(problem)
            tell(problem)
            if shard is not None:
                damaged[shard] = None
    if args.repair and damaged:
        storage.delete(storage.join(output, SUCCESS))
        for shard in damaged:
            remove_shard(output, (*main_folders(), *FILE_FOLDERS), shard)
        tell(f"{output}: {amount(len(damaged), 'shards')} to be done again: rerun the command of the job")
    elif damaged:
        say(f"{output}: `vqbeam verify --repair {args.directory}` has damaged shards done again", file=sys.stderr)
    wrong = None if problems else evaluation_problem(output, plan)
    if wrong:
        problems.append(wrong)
        tell(wrong)
    keys = None if problems else repeated_keys(output, plan, total_of(output).rows_written)
    if args.json:
        told = {"output": output, "well": not problems, "shards": plan.shards, "shards_done": done, "keys": keys}
        say(
            json.dumps(
                told | {"problems": problems, "damaged_shards": [*damaged], "removed": bool(args.repair and damaged)}
            )
        )
    elif problems:
        say(f"{output}: {amount(len(problems), 'problems')}", file=sys.stderr)
    else:
        say(f"{output}: {amount(done, 'shards')}, every object as its mark says")
        if keys:
            say(f"{output}: {keys}")
    return 1 if problems else 0


def evaluation_problem(output: str, plan: Plan) -> str | None:
    """What is wrong with the totals of a job that measures and is done and well; None if nothing is."""
    made = plan.fingerprint
    if "with_clip" not in made or not storage.exists(storage.join(output, SUCCESS)):
        return None
    from transforms.outputs.evaluation import totals_problem

    others = [made[f"model_{number}"] for number in range(2, int(made["models"]) + 1)]
    weights = [model["weights_id"] for model in (made, *others)]
    return totals_problem(output, plan.shards, weights, total_of(output), with_clip=bool(made["with_clip"]))


def add_verify_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object; docs/errors.md has its fields")
    parser.add_argument("--repair", action="store_true", help="have damaged shards done again; only if no run goes on")


COMMAND = Command(
    "Check that an output folder is complete and undamaged: counts, sizes and checksums against its marks. Names "
    "keys that repeat, too.",
    add_verify_flags,
    run,
    examples=(
        "vqbeam verify tokens",
        "vqbeam verify tokens --repair",
    ),
)
