"""The flags of Beam, read from the source of its options: a command that is refused need not import Beam, which takes
more than a second of CPU. Beam itself checks the values of a command that is not."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from transforms.errors import UsageError

# Runners that Beam itself knows by the full name of their class alone, and the extra of vqbeam with what they need.
RUNNERS = {"daskrunner": ("apache_beam.runners.dask.dask_runner.DaskRunner", "dask")}
LITERALS = ("dest", "nargs", "const", "default", "action")  # of argparse, that decide how words become values
TYPES: Mapping[str, type] = {"int": int, "float": float}
COMMA_SEPARATED = "_CommaSeparatedListAction"  # Beam's, for --experiments and --dataflow_service_options


class _Declared(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _CommaSeparated(argparse.Action):
    """Adds the parts of a list; after a second = a comma is part of a value."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        parts = [""]
        for char in str(values):
            if char == "," and parts[-1].count("=") < 2:
                parts.append("")
            else:
                parts[-1] += char
        found = filter(None, (part.strip() for part in parts))
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), *found])


@cache
def declared() -> argparse.ArgumentParser:
    """A parser of Beam's flags. Values of types that are Beam's own stay text; defaults that it computes are None."""
    package = importlib.util.find_spec("apache_beam")
    if package is None or package.origin is None:
        raise UsageError("Apache Beam is not installed: pip install apache-beam")
    source = Path(package.origin).parent / "options" / "pipeline_options.py"
    parser = _Declared(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = [str(getattr(word, "value", "")) for word in node.args]
            if names and all(name.startswith("--") for name in names):
                parser.add_argument(*names, **_how_to_read(node))
    return parser


def _how_to_read(call: ast.Call) -> dict[str, Any]:
    """What a call of `add_argument` says of values, as far as it says it in words."""
    said: dict[str, Any] = {}
    for keyword in call.keywords:
        name, value = str(keyword.arg), keyword.value
        if name in LITERALS and isinstance(value, ast.Constant):
            said[name] = value.value
        elif name == "action" and getattr(value, "id", "") == COMMA_SEPARATED:
            said[name] = _CommaSeparated
        elif name == "type" and getattr(value, "id", "") in TYPES:
            said[name] = TYPES[value.id]  # type: ignore[attr-defined]
    return said


def options(beam_args: list[str]) -> argparse.Namespace:
    """The values of Beam's flags in a command line, by the names that Beam gives them. Raises `UsageError`."""
    return declared().parse_known_args(beam_args)[0]


def beam_parser(runner: str | None = None) -> argparse.ArgumentParser:
    """A parser of the flags that Beam's `PipelineOptions` declare; imports Beam.

    `runner`, a class with its module, is imported first, since it may declare more flags.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    if runner:
        import_runner(runner)
    parser: argparse.ArgumentParser = _BeamArgumentParser(
        allow_abbrev=False, add_help=False, conflict_handler="resolve"
    )
    pending = list(PipelineOptions.__subclasses__())
    while pending:
        kind = pending.pop(0)
        pending.extend(kind.__subclasses__())
        if "_add_argparse_args" in kind.__dict__:
            kind._add_argparse_args(parser)
    return parser


def runner_class(name: str) -> str:
    """A runner as Beam takes it: "DaskRunner" and "dask" as the full name of that class, others as they are."""
    short = name.lower()
    full, _ = RUNNERS.get(short if short.endswith("runner") else short + "runner", (name, ""))
    return full


def import_runner(runner: str) -> None:
    """Import the module of a runner's class. Raises `UsageError`, with the extra that is missing if it is one."""
    try:
        importlib.import_module(runner.rpartition(".")[0])
    except (ImportError, AttributeError) as error:  # the latter with dask, and without distributed
        for name, extra in RUNNERS.values():
            if name == runner:
                missing = f"{name.rpartition('.')[2]} needs more packages ({error})"
                raise UsageError(f'{missing}: pip install "vqbeam[{extra}]"') from error
        raise UsageError(f"--runner {runner}: cannot be imported ({error})") from error
