"""Starts a vqbeam command for a Flex Template: its parameters are --name=value, and `command` names the command.

Lists are words in one parameter, quoted as in a shell; a flag without a value is "true". Other parameters, which the
launcher of Dataflow adds, are Beam's.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from pipelines.__main__ import main
from pipelines.command import COMMANDS, find
from pipelines.parsing import flag_names, parser_of

RUNNER = "--runner=DataflowRunner"


def command_line(parameters: Sequence[str]) -> list[str]:
    """The words of the command for "--name=value" parameters. Exits with a message if they name no command."""
    given = [parameter.partition("=") for parameter in parameters]
    name = next((value for flag, _, value in given if flag == "--command"), "")
    if name not in COMMANDS:
        sys.exit(f"the parameter command is one of {', '.join(COMMANDS)}, not {name!r}")
    own = flag_names(parser_of(name, find(name)))
    words = [name]
    for flag, equals, value in given:
        if flag == "--command":
            continue
        action = own.get(flag)
        if action is None:
            words.append(flag + equals + value)
        elif action.nargs == 0:
            words += [flag] if value.lower() in ("", "true", "1", "yes") else []
        elif isinstance(action.nargs, str):
            words += [flag, *shlex.split(value)]
        elif action.dest == flag[2:] + "s":  # may be given again, as --model of evaluate
            words += [word for part in shlex.split(value) for word in (flag, part)]
        else:
            words.append(f"{flag}={value}")
    if not any(flag == "--runner" for flag, _, _ in given):
        words.append(RUNNER)
    return words


if __name__ == "__main__":
    sys.exit(main(command_line(sys.argv[1:])))
