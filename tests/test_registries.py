"""Users can find what the code registers: each entry is in `--help` and in the documentation."""

from __future__ import annotations

import re
from functools import cache

import pytest

from models.image_tokenizer import FAMILIES
from pipelines.__main__ import overview
from pipelines.command import COMMANDS, LAUNCHING, JobCommand, find
from pipelines.parsing import parser_of
from tests.support.paths import ROOT
from transforms.inputs.formats import BY_NAME
from transforms.outputs.layout import EXTENSIONS, LAYOUTS, TOKEN_LAYOUTS

REGISTERED = {
    "command": tuple(COMMANDS),
    "tokenizer family": FAMILIES,
    "input format": tuple(name for name, format in BY_NAME.items() if format.kinds and format.endings),
    "image layout": tuple(LAYOUTS),
    "image format": tuple(EXTENSIONS),
    "layout of tokens": tuple(TOKEN_LAYOUTS),
}
ENTRIES = [(kind, name) for kind, names in REGISTERED.items() for name in names]


@cache
def documentation() -> str:
    """README.md and every page of docs/."""
    return "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))


@cache
def help_texts(kind: str) -> str:
    """The help of vqbeam for commands; for other kinds that of all commands that launch a pipeline."""
    if kind == "command":
        return overview()
    jobs = {name: command for name in COMMANDS if (command := find(name)).launches}
    return "\n".join(parser_of(name, command).format_help() for name, command in jobs.items())


def names(text: str, name: str) -> bool:
    """Whether a text has the name as a word; "vqgan-jax" is another."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_what_is_registered_is_in_the_help(kind: str, name: str) -> None:
    assert names(help_texts(kind), name), f"no --help names the {kind} {name}"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_what_is_registered_is_in_the_documentation(kind: str, name: str) -> None:
    assert names(documentation(), name), f"neither README.md nor docs/ names the {kind} {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown_in_use(name: str) -> None:
    assert f"vqbeam {name} " in documentation()


@pytest.mark.parametrize("name", [name for name in COMMANDS if isinstance(find(name), JobCommand)])
def test_every_launching_command_has_a_page_of_its_name(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.md").is_file()


def test_a_name_is_a_whole_word() -> None:
    assert names("files: a file each; webdataset: tars", "webdataset")
    assert not names("--backend vqgan-jax", "vqgan")


def test_the_commands_that_launch_are_known_without_importing_them() -> None:
    assert tuple(name for name in COMMANDS if find(name).launches) == LAUNCHING
