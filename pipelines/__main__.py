"""The `vqbeam` command, also `python -m pipelines`: finds the subcommand, parses its flags, runs it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from pipelines import completion
from pipelines.command import COMMANDS, LAUNCHING, Command, find, version
from pipelines.siblings import shadowed_sibling
from pipelines.supervisor import WATCH, code_of_lost_worker, supervised
from pipelines.terminal import say

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; with None, the one of this process, which it then ends."""
    problem = shadowed_sibling()
    if problem:
        code = _refuse("vqbeam", problem)
    else:
        code = _as_program(sys.argv[1:]) if argv is None else _dispatch(list(argv))
    if argv is None:
        _leave(code)
    return code


def _as_program(argv: list[str]) -> int:
    if completion.ASKED in os.environ:
        completion.answer(os.environ)
    from pipelines.process import quiet_logging, reuse_freed_memory

    reuse_freed_memory()
    quiet_logging()
    if not argv or argv[0] not in LAUNCHING:
        return _as_process(argv)
    if not {"-h", "--help"}.intersection(argv):
        say(f"vqbeam {argv[0]}: starting", file=sys.stderr, flush=True)  # the flags alone take a second to import
    find(argv[0])
    return supervised(argv, _as_process)


def _as_process(argv: list[str]) -> int:
    from pipelines.stopping import SIGNALS, LeftRunning, Terminated, exit_code, interruptible

    interrupt, terminate = SIGNALS
    try:
        with interruptible():
            code = _dispatch(argv)
            sys.stdout.flush()
    except LeftRunning as left:
        say(f"\n{left.told}. Finished shards are kept; to resume:\n  {_resume(argv)}", file=sys.stderr)
        return exit_code(left.number)
    except Terminated:
        code = exit_code(terminate)
    except KeyboardInterrupt:
        code = exit_code(interrupt)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code in map(exit_code, SIGNALS):
        kept = any(word.partition("=")[0] == "--output" for word in argv)
        say(
            f"\nStopped. Finished shards are kept; to resume:\n  {_resume(argv)}" if kept else "\nStopped.",
            file=sys.stderr,
        )
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv:
        say(overview(), file=sys.stderr)
        return USAGE_ERROR
    name, rest = argv[0], argv[1:]
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        say(overview())
        return 0
    if name in ("-V", "--version"):
        say(f"vqbeam {version(otherwise='(run from a checkout, not installed)')}")
        return 0
    from models.errors import ModelError  # slower than all of the above
    from pipelines import config_file, dataflow, engines, parsing
    from pipelines.scratch import scratch_folder
    from pipelines.stages import stage
    from transforms.errors import RunFailed, ShardFailed, UsageError, WorkerLost

    if name not in COMMANDS:
        guess = parsing.nearest(name, COMMANDS)
        hint = f"did you mean {guess}?" if guess else f"the commands are {', '.join(COMMANDS)}."
        return _refuse("vqbeam", f"unknown command {name!r}; {hint}")
    command = find(name)
    parser = parsing.parser_of(name, command)
    try:
        config = ""
        if command.launches:
            rest, config = config_file.with_config(rest, parser)
        args, beam_args = parsing.parse(parser, rest, launches=command.launches, takers=_takers, check=_check)
        args.config = config
        if command.launches:
            args.local = engines.is_local(beam_args)
            beam_args = dataflow.settle(args, beam_args)
        if isinstance(command, Command):
            return command.run(args, beam_args)
        with scratch_folder(args.temp_dir if getattr(args, "local", True) else None) as scratch:
            with stage("Looking at the input and the models"):
                options = command.options(args)
                options.job.check_names()
                from pipelines.run import run_job

                task = command.prepare(options)
            return run_job(command, options.job, task, beam_args, scratch)
    except (UsageError, ModelError) as error:
        return _refuse(parser.prog, parsing.in_flags(str(error), parser, getattr(error, "option", None)))
    except (ShardFailed, RunFailed) as error:
        say(f"{parser.prog}: {parsing.in_flags(str(error), parser)}", file=sys.stderr)
        return code_of_lost_worker() if isinstance(error, WorkerLost) else 1


def _check(args: argparse.Namespace, beam_args: list[str]) -> None:
    """Refuse what an engine cannot have or do."""
    from pipelines import dataflow, engines

    if beam_args:
        engines.check(args, beam_args)
    dataflow.check(args, beam_args)


def _takers(flag: str) -> list[str]:
    """The commands that have a flag."""
    from pipelines import parsing

    return [name for name in COMMANDS if flag in parsing.flag_names(parsing.parser_of(name, find(name)))]


def _refuse(prog: str, message: str) -> int:
    say(f"{prog}: {message}", file=sys.stderr)
    return USAGE_ERROR


def overview() -> str:
    """The help of vqbeam itself."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return f"""\
usage: vqbeam COMMAND [flags]

Turns captioned images into VQGAN tokens, and prompts into images, in bulk, on one machine or on many.

commands:
{lines}

vqbeam COMMAND --help explains a command and its flags; vqbeam --version prints the version.
To install: on Linux torch brings CUDA along, 3.4 GB of 5.3 GB in all.
Without a GPU, install torch's CPU build first, as torch's own site says.
To begin: vqbeam encode --input 'photos/*.tar' --output tokens"""


def _resume(argv: list[str]) -> str:
    """The command line that resumes this one: the same without --overwrite."""
    by_module = Path(sys.argv[0]).name == "__main__.py"
    program = ["python", "-m", "pipelines"] if by_module else ["vqbeam"]
    return shlex.join([*program, *(arg for arg in argv if arg != "--overwrite")])


def _leave(code: int) -> NoReturn:
    """Ends the process at once if a stopped run has left threads behind."""
    here = (threading.main_thread().name, WATCH)
    if code != 0 and any(thread.name not in here for thread in threading.enumerate()):
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
