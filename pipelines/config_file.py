"""`--config FILE`: flags from a YAML or TOML file, as words of a command line before those that were typed.

    input: [pairs/*.tar]
    output: tokens
    limit: 1000

A flag that is typed, too, is taken from the command line alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from pipelines.beam_flags import declared
from pipelines.parsing import flag_names, house_form, nearest
from transforms import storage
from transforms.errors import UsageError

FLAG = "--config"
KINDS = (".yaml", ".yml", ".json", ".toml")
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
Values = Mapping[str, "str | list[str]"]


def with_config(argv: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], str]:
    """The words of a command line with those of its file put first, and the whole as text for such a file.

    Without `--config`: the words as they are, and "". Raises `UsageError`.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    typed, path = _typed(argv[:end])
    if path is None:
        return list(argv), ""
    known = own = flag_names(parser)
    read = _read(path)
    given = {}
    for name, value in read.items():
        flag, _, _ = house_form(f"--{name}")
        if flag not in known:
            known = {**flag_names(declared()), **own}
        if flag not in known:
            guess = nearest(name, (word[2:] for word in own))
            raise UsageError(f"{path}: unknown flag {name}" + (f"; did you mean {guess}?" if guess else ""))
        if flag == FLAG:
            raise UsageError(f"{path}: a file cannot name another one")
        if flag not in typed:
            given[flag] = value
    _check_models(path, given | typed, own)
    words = [word for flag, value in given.items() for word in _words(path, flag, value, known[flag], flag in own)]
    resolved = {flag[2:]: value for flag, value in (given | typed).items()}
    return [*words, *argv], _text(resolved, argv[end + 1 :])


def _check_models(path: str, flags: Values, own: Mapping[str, argparse.Action]) -> None:
    """Refuse what the order of typed words says: which of several models a flag is for."""
    several = [flag for flag in flags if isinstance(flags[flag], list) and getattr(own.get(flag), "repeats", False)]
    of_one = [flag for flag in flags if getattr(own.get(flag), "of_the_last", False)]
    if several and of_one:
        told = f"{of_one[0]} would belong to the last {several[0]} alone"
        raise UsageError(f"{FLAG} {path}: {told}: give one {several[0]}")


def _typed(argv: Sequence[str]) -> tuple[dict[str, str | list[str]], str | None]:
    """The flags that were typed, with their values, and the value of `--config`."""
    typed: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name, equals, value = house_form(word)
            typed.setdefault(name, []).extend([value] if equals else [])
        elif name:
            typed[name].append(word)
    path = typed.pop(FLAG, None)
    if path is not None and len(path) != 1:
        raise UsageError(f"{FLAG} needs one file, by name")
    plain = {flag: "true" if not words else words[0] if len(words) == 1 else words for flag, words in typed.items()}
    return plain, path[0] if path else None


def _read(path: str) -> Values:
    """The flags of a file as text: a number is written as it is there. Raises `UsageError`."""
    kind = next((kind for kind in KINDS if path.lower().endswith(kind)), None)
    if kind is None:
        raise UsageError(f"{FLAG} {path}: expected a file that ends with {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    try:
        text = storage.read_bytes(storage.absolute(path)).decode()
    except FileNotFoundError as error:
        raise UsageError(f"{FLAG} {path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{FLAG} {path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    found = _toml(path, text) if kind == ".toml" else _yaml(path, text)
    if not isinstance(found, Mapping):
        raise UsageError(f"{FLAG} {path}: expected names of flags with their values, as in `output: tokens`")
    return {str(name): _value(path, str(name), value) for name, value in found.items()}


def _yaml(path: str, text: str) -> Any:
    try:
        node = yaml.compose(text, yaml.BaseLoader)
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            twice = [name for number, name in enumerate(names) if name in names[:number]]
            if twice:
                raise UsageError(f"{FLAG} {path}: {twice[0]} is there twice")
        return yaml.load(text, yaml.BaseLoader)  # texts only: 010 stays 010, and no stays no
    except yaml.YAMLError as error:
        raise UsageError(f"{FLAG} {path}: not YAML ({' '.join(str(error).split())})") from error


def _toml(path: str, text: str) -> Any:
    if sys.version_info < (3, 11):
        raise UsageError(f"{FLAG} {path}: TOML needs Python 3.11; write YAML")
    import tomllib  # type: ignore[import-not-found]  # mypy reads it as Python 3.10

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{FLAG} {path}: not TOML ({error})") from error


def _value(path: str, name: str, value: Any) -> str | list[str]:
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, list | Mapping) for v in value)):
        raise UsageError(f"{FLAG} {path}: {name} is nested; write it as on a command line, as text or a list of texts")
    return [_plain(part) for part in value] if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(path: str, flag: str, value: str | list[str], action: argparse.Action, ours: bool) -> Iterable[str]:
    values = value if isinstance(value, list) else [value]
    if action.nargs == 0:
        if len(values) > 1 or values[0].lower() not in SWITCHES:
            raise UsageError(f"{FLAG} {path}: {flag[2:]} is true or false, not {value}")
        return [flag] if SWITCHES[values[0].lower()] else []
    if not values and action.nargs == "*":
        return [flag]
    if not values or values == [""]:
        raise UsageError(f"{FLAG} {path}: {flag[2:]} has no value; leave it out, or give one")
    if len(values) > 1 and ours and action.nargs not in ("+", "*") and not getattr(action, "repeats", False):
        raise UsageError(f"{FLAG} {path}: {flag[2:]} takes one value, not a list")
    return [f"{flag}={each}" for each in values]  # a flag that is given again adds to a list


def _text(resolved: Mapping[str, str | list[str]], to_beam: Sequence[str]) -> str:
    behind = f"# and for Beam, after --: {' '.join(to_beam)}\n" if to_beam else ""
    return behind + str(yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True))
