"""What a command of vqbeam is, and the list of them. `pipelines/NAME.py` holds the command NAME as its `COMMAND`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

if TYPE_CHECKING:
    from pipelines.request import JobOptions, Task

COMMANDS = {  # what `vqbeam --help` says of them
    "encode": "turn images with captions into VQGAN tokens",
    "decode": "turn VQGAN tokens back into images",
    "generate": "draw images for prompts with DALL·E mini",
    "vary": "make variations of images or tokens",
    "evaluate": "measure how near the reconstructions of tokenizers are to images",
    "export": "shuffle VQGAN tokens into shards of equal size, ready to train on",
    "rank": "score images against their captions with a CLIP",
    "convert": "turn a VQGAN or DALL·E BART checkpoint of another project into vqbeam's format",
    "verify": "check that an output folder is complete and undamaged",
    "errors": "show the rows that the job in an output folder rejected",
    "report": "write a page about what came out: counts, samples, rejected rows, speed",
    "status": "show how far the run in an output folder has come",
    "watch": "show the status again and again until the job is complete",
    "jobs": "list or cancel the jobs of a job service of Beam",
    "completion": "print what makes a shell complete commands and flags",
}

# Those that take flags of Beam, known without importing them.
LAUNCHING = ("encode", "decode", "generate", "vary", "evaluate", "export", "rank")


@dataclass(frozen=True)
class Command:
    """A command that runs in this process. `run` takes the parsed flags and those of Beam, and returns the exit code;
    it imports what is slow to import, so that `--help` stays fast. `launches`: it takes flags of Beam."""

    description: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, list[str]], int]
    launches: bool = False
    examples: tuple[str, ...] = ()  # command lines, which end the help


class Options(Protocol):
    """The flags of a launching command, typed: those that all share are in `job`."""

    @property
    def job(self) -> JobOptions: ...


@dataclass(frozen=True)
class JobCommand:
    """A command that plans shards and launches a pipeline over them.

    `options` turns the parsed flags into values and checks what can be checked at once. `prepare` takes these values,
    opens the models and says what the job is; it imports torch, which takes seconds. `counts` is what the summary
    counts, `unit` what a row of it is called. A new `schema_version` is for new columns: a folder with others is not
    resumed.
    """

    name: str
    description: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    options: Callable[[argparse.Namespace], Options]
    prepare: Callable[[Any], Task]
    schema_version: int = 1
    writes_images: bool = False
    counts: Literal["rows", "images"] = "rows"
    unit: Literal["rows", "images"] = "images"
    examples: tuple[str, ...] = ()
    launches: ClassVar[bool] = True


def find(name: str) -> Command | JobCommand:
    """The command of that name; its module is imported."""
    return cast(Command | JobCommand, importlib.import_module(f"pipelines.{name}").COMMAND)


def find_job(name: str) -> JobCommand | None:
    """The command that made a plan; None if this version of vqbeam has no such command."""
    command = find(name) if name in COMMANDS else None
    return command if isinstance(command, JobCommand) else None


def version(otherwise: str) -> str:
    """The version of vqbeam that is installed, `otherwise` if none is."""
    from importlib import metadata  # slower than `vqbeam --help` needs it

    try:
        return metadata.version("vqbeam")
    except metadata.PackageNotFoundError:
        return otherwise
