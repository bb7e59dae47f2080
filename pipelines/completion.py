"""`vqbeam completion SHELL`: what makes a shell complete commands and flags; and the answer when it asks, at TAB."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import NoReturn

from pipelines.command import COMMANDS, Command, find
from pipelines.terminal import say

SHELLS = {  # and what turns completion on in each
    "bash": 'eval "$(vqbeam completion bash)"',
    "zsh": 'eval "$(vqbeam completion zsh)"',
    "fish": "vqbeam completion fish | source",
}
ASKED = "_ARGCOMPLETE"  # in the environment of a command that a shell runs to ask what can follow


def answer(environment: Mapping[str, str]) -> NoReturn:
    """Tell a shell what can follow the words in its COMP_LINE, by argcomplete's way, and end the process."""
    import argcomplete

    typed = environment.get("COMP_LINE", "").split()[1:]
    parser = argparse.ArgumentParser(prog="vqbeam")
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        found = commands.add_parser(name, help=summary)
        if typed[:1] == [name]:  # the others are not asked for, and their modules take time
            find(name).add_flags(found)
    commands.add_parser("help").add_argument("command", choices=list(COMMANDS))
    argcomplete.autocomplete(parser, always_complete_options="long")
    os._exit(1)  # the shell asked without a line


def add_flags(parser: argparse.ArgumentParser) -> None:
    lines = "; ".join(f"{shell}, {line}" for shell, line in SHELLS.items())
    parser.add_argument("shell", choices=list(SHELLS), help=f"what its start-up file needs: {lines}")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Prints the shell's code, and returns 0."""
    import argcomplete

    say(argcomplete.shellcode(["vqbeam"], shell=args.shell).strip())
    return 0


COMMAND = Command(
    "Print the code that makes a shell complete commands, flags and their values at TAB.",
    add_flags,
    run,
    examples=("vqbeam completion bash > vqbeam-completion.sh", "vqbeam completion fish > vqbeam.fish"),
)
