"""The `vqbeam` command: what it answers, and with which exit code."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from models.errors import CheckpointError, ConfigError
from pipelines import __main__ as command
from pipelines.command import COMMANDS, Command, find
from tests.support.paths import ROOT
from transforms.errors import ShardFailed, UsageError


@pytest.fixture
def trial(monkeypatch):
    """Sets what a command `vqbeam trial` does."""

    def does(run: Callable[[argparse.Namespace, list[str]], int]) -> None:
        module = types.ModuleType("pipelines.trial")
        module.COMMAND = Command("Tries.", lambda parser: parser.add_argument("--number", type=int), run)
        monkeypatch.setitem(sys.modules, "pipelines.trial", module)
        monkeypatch.setitem(COMMANDS, "trial", "tries")

    return does


def raising(error: Exception):
    def run(args: argparse.Namespace, beam_args: list[str]) -> int:
        raise error

    return run


def test_a_command_gets_its_flags_and_gives_its_exit_code(trial):
    trial(lambda args, beam_args: args.number + len(beam_args))
    assert command.main(["trial", "--number", "7"]) == 7


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("wrong"), 2),
        (ConfigError("wrong"), 2),
        (CheckpointError("wrong"), 2),
        (ShardFailed("wrong"), 1),
    ],
)
def test_errors_that_the_user_can_mend_are_one_line_and_an_exit_code(trial, capsys, error, code):
    trial(raising(error))
    assert command.main(["trial"]) == code
    assert capsys.readouterr().err == "vqbeam trial: wrong\n"


def test_an_error_about_an_option_names_its_flag(trial, capsys):
    trial(raising(UsageError("expected a whole number", option="number")))
    assert command.main(["trial"]) == 2
    assert capsys.readouterr().err == "vqbeam trial: --number: expected a whole number\n"


def test_an_error_of_ours_keeps_its_traceback(trial):
    trial(raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        command.main(["trial"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["encdoe"], "vqbeam: unknown command 'encdoe'; did you mean encode?"),
        (["qqqq"], f"vqbeam: unknown command 'qqqq'; the commands are {', '.join(COMMANDS)}."),
        (["status", "--nope"], "vqbeam status: unknown flag --nope"),
        ([], "usage: vqbeam COMMAND [flags]"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(capsys, argv, message):
    assert command.main(argv) == 2
    assert capsys.readouterr().err.splitlines()[0] == message


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(capsys, argv):
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_its_flags(name):
    done = run_vqbeam("help", name)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vqbeam {name} ")


def test_the_version_is_told(capsys):
    assert command.main(["--version"]) == 0
    assert re.match(r"vqbeam (\d|\(run from a checkout)", capsys.readouterr().out)


NO_INPUT = [
    [name, "--input", "nowhere/x.parquet", "--output", "nowhere/out"] for name in COMMANDS if find(name).launches
]

NO_MODEL = [
    ["encode", "--input", "examples/emoji/sample", "--model", "nowhere", "--output", "nowhere/out"],
    ["generate", "--prompt", "a", "--clip", "nowhere", "--output", "nowhere/out"],
]
TOGETHER = [
    ["generate", "--prompt", "a", "--keep_best", "2", "--output", "nowhere/out"],
    ["vary", "--input", "examples/emoji/sample", "--keep_rows", "2", "--output", "nowhere/out"],
]
MISSPELT = [["encode", "--batchsize", "3"], ["nope"]]


@pytest.mark.parametrize(
    "argv", [["--help"], ["encode", "--help"], *MISSPELT, *NO_INPUT, *NO_MODEL, *TOGETHER], ids=" ".join
)
def test_quick_answers_import_neither_torch_nor_beam(argv):
    code = (
        "import sys; from pipelines.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(len({'torch', 'apache_beam', 'pandas', 'urllib3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("generate --prompt a --output o --strength 0.5", "unknown flag --strength; vary has it\n"),
        ("encode --input a --output o --images-per-prompt 3", "unknown flag --images-per-prompt; generate has it\n"),
        (
            "status out --dry_run",
            "unknown flag --dry_run; encode, decode, generate, vary, evaluate, export, rank have it\n",
        ),
        (
            "vary --input a --output o --images_per_prompt 3",
            "unknown flag --images_per_prompt; generate has it; did you mean --images_per_input?\n",
        ),
    ],
)
def test_a_flag_of_another_command_is_told_with_that_command(line, told, capsys):
    assert command.main(line.split()) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["status", "verify"])
def test_the_help_names_every_command_whose_folders_can_be_looked_at(name, capsys):
    with pytest.raises(SystemExit):
        command.main([name, "--help"])
    told = capsys.readouterr().out.partition("DIR")[2]
    assert [made for made in COMMANDS if find(made).launches and made not in told] == []


def test_a_reader_that_goes_away_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "pipelines", "--help"]
    done = subprocess.run(argv, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def run_vqbeam(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipelines", *argv], cwd=ROOT, capture_output=True, text=True)
