"""Parses a command line: our flags here, those of Beam are recognised and passed on, any other is an error.

Beam itself ignores flags that it does not know, so a misspelt one would change a run in silence.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from pipelines.beam_flags import beam_parser, declared, runner_class
from pipelines.command import Command, JobCommand
from transforms.errors import UsageError

EPILOG = (
    "Flags may be written with hyphens instead of underscores. Flags of Apache Beam and its runners (--runner, "
    "--project, --region, --temp_location, ...) are passed to Beam; arguments after -- are passed to Beam unchanged."
)
SYNONYMS = {  # what other tools call flags of ours
    "--accelerator": r"(worker)?(gpu|accelerator)s?(type|count|kind)?",
}
LIKENESS = 0.71  # of a suggestion, 1 is equal: "batch" is like "batchsize", "strength" is not like "streaming"


class CommandParser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError`, takes no abbreviations and keeps its usage line short. Its help ends
    with `examples`."""

    def __init__(self, prog: str, description: str, *, epilog: str | None = None, examples: Sequence[str] = ()) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)
        self._examples = examples
        self._negative_number_matcher = re.compile(r"-\d[\d.,-]*$")  # so that -1,1 is a value and not a flag

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nSee {self.prog} --help.")

    def format_help(self) -> str:
        if self.usage is None:
            formatter = self._get_formatter()
            needed = [action for action in self._actions if action.required]
            formatter.add_usage(None, needed, [], prefix="")
            self.usage = formatter.format_help().strip().replace("%", "%%") + " [flags]"
        examples = "".join(f"\n  {example}" for example in self._examples)  # as they are: argparse would wrap them
        return super().format_help() + (f"\nexamples:{examples}\n" if examples else "")


def parser_of(name: str, command: Command | JobCommand) -> CommandParser:
    """A parser of a command's own flags."""
    epilog = EPILOG if command.launches else None
    parser = CommandParser(f"vqbeam {name}", command.description, epilog=epilog, examples=command.examples)
    command.add_flags(parser)
    return parser


def flag_names(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """The flags of a parser by name ("--input"). argparse keeps them to itself."""
    return parser._option_string_actions


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    *,
    launches: bool,
    takers: Callable[[str], Sequence[str]] = lambda flag: (),
    check: Callable[[argparse.Namespace, list[str]], None] = lambda args, beam_args: None,
) -> tuple[argparse.Namespace, list[str]]:
    """Returns our own flags, parsed, and those of Beam, checked but left as text.

    A command that does not launch a pipeline (`launches`) accepts no flag of Beam. `takers` returns the commands that
    have a flag. `check` may refuse what is returned, before Beam is imported. Raises `UsageError` with a suggestion for
    a flag that is neither ours nor Beam's.
    """
    own = flag_names(parser)
    end = argv.index("--") if launches and "--" in argv else len(argv)
    tokens, rest = list(argv[:end]), list(argv[end + 1 :])
    own_argv: list[str] = []
    foreign: list[str] = []
    unknown: list[str] = []
    runner = _runner_class_named(argv) if launches else None
    beam: Mapping[str, argparse.Action] | None = None  # from the first flag that is not ours on
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("--") or token == "--":
            own_argv.append(token)
            continue
        name, equals, value = house_form(token)
        if name in own:
            own_argv.append(name + equals + value)
            continue
        if launches and beam is None:
            beam = flag_names(beam_parser(runner) if runner else declared())
        action = beam.get(name) if beam else None
        if action is None:
            unknown.append(token.partition("=")[0])
            while tokens and not tokens[0].startswith("-"):
                tokens.pop(0)  # its values, which would only confuse the message
            continue
        foreign.append(name + equals + value)
        if not equals and action.nargs != 0:
            if tokens and not tokens[0].startswith("--"):
                foreign.append(tokens.pop(0))
            elif action.nargs is None:
                parser.error(f"{name} needs a value")
    if unknown:
        known = beam or ()
        lines = [_unknown_message(name, own, known, takers(house_form(name)[0])) for name in unknown]
        parser.error("\n".join(lines))
    if launches and own_argv and not own_argv[0].startswith("-"):
        _refuse_stray(parser, own_argv)
    args, extra = parser.parse_known_args(own_argv)
    if extra:
        parser.error(f"unexpected argument {extra[0]!r}: no flag takes it")
    check(args, foreign + rest)
    if foreign:  # checks values now, before a plan is made; Beam's own error() prints all its flags and exits
        checker = beam_parser(runner)
        checker.error = parser.error  # type: ignore[method-assign]
        checker.parse_known_args(foreign)
    return args, foreign + rest


def _refuse_stray(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Refuse what comes before all flags of a command that takes flags only: often the input, or a prompt."""
    own, word = flag_names(parser), argv[0]
    flag = next((name for name in ("--prompt", "--input") if name in own and name not in argv), None)
    if "--prompt" in own and os.path.exists(word):
        flag = "--input"
    parser.error(f"unexpected argument {word!r}" + (f": did you mean {flag} {shlex.quote(word)}?" if flag else ""))


def in_flags(message: str, parser: argparse.ArgumentParser, option: str | None = None) -> str:
    """A message of the library with its options as flags: "max_error_rate 0.1" as "--max_error_rate 0.1".

    Only names with an underscore are looked for, since "columns" may be a plain word. `option` is the one at fault. Its
    name begins a `UsageError`: its flag begins the message instead, unless it is in the rest, or no flag of `parser`.
    """
    message = message.removeprefix(f"{option}: ")
    names = [name[2:] for name in flag_names(parser) if "_" in name]
    if names:
        message = re.sub(rf"(?<![^\s(])({'|'.join(names)})(?=[\s,;:)=]|$)", r"--\1", message)
    flag = f"--{option}"
    return message if flag in message or flag not in flag_names(parser) else f"{flag}: {message}"


def house_form(token: str) -> tuple[str, str, str]:
    """("--name_with_underscores", "=" or "", value) of "--name-with-hyphens=value"."""
    name, equals, value = token.partition("=")
    return "--" + name[2:].replace("-", "_"), equals, value


def _runner_class_named(argv: Sequence[str]) -> str | None:
    """The class of the runner that --runner names, with its module; None if Beam knows a short name of it."""
    for index, token in enumerate(argv):
        name, _, value = token.partition("=")
        if name == "--runner":
            value = runner_class(value or "".join(argv[index + 1 : index + 2]))
            return value if "." in value else None
    return None


def _unknown_message(name: str, own: Iterable[str], beam: Iterable[str], takers: Sequence[str]) -> str:
    guess = _synonym(name, own) or nearest(name, own) or (None if takers else nearest(name, beam))
    elsewhere = f"; {', '.join(takers)} {'has' if len(takers) == 1 else 'have'} it" if takers else ""
    return f"unknown flag {name}{elsewhere}" + (f"; did you mean {guess}?" if guess else "")


def _synonym(name: str, own: Iterable[str]) -> str | None:
    """The flag of ours that other tools call by this name."""
    plain = _letters(name)
    found = (flag for flag, names in SYNONYMS.items() if re.fullmatch(names, plain))
    return next((flag for flag in found if flag in own), None)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one; case, hyphens and underscores do not count."""
    plain = {_letters(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(_letters(word), plain, n=1, cutoff=LIKENESS)
    return plain[close[0]] if close else None


def _letters(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
