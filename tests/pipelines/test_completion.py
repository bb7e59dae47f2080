"""TAB in a real shell: commands, flags, values and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.command import COMMANDS
from pipelines.completion import SHELLS

PROGRAMS = Path(sys.executable).parent
BASH = """
eval "$(vqbeam completion bash)"
COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('') && COMP_CWORD=$((COMP_CWORD + 1))
function=$(complete -p vqbeam) && function=${{function#*-F }}
${{function% *}} vqbeam
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "vqbeam completion fish | source; complete -C {line!r}"
ZSH = """
zmodload zsh/zpty
zpty -b shell zsh -f
zpty -w shell 'PS1= ; autoload -Uz compinit && compinit -u -d {folder}/dump'
zpty -w shell 'eval "$(vqbeam completion zsh)"; print rea""dy'
zpty -r shell found '*ready*'
zpty -w -n shell {line!r}$'\\t'
zpty -r shell found '*{wanted}*' && print -r -- $found
"""


def run_in(shell: str, script: str) -> str:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("vqbeam en", ["encode"]),
        ("vqbeam e", ["encode", "evaluate", "export", "errors"]),
        ("vqbeam encode --inp", ["--input", "--input_format"]),
        ("vqbeam generate --keep_b", ["--keep_best"]),
        ("vqbeam decode --image_format w", ["webp"]),
        ("vqbeam help ra", ["rank"]),
        ("vqbeam completion f", ["fish"]),
    ],
)
def test_bash_completes(line: str, found: list[str]) -> None:
    assert sorted(word.strip() for word in run_in("bash", BASH.format(line=line)).splitlines()) == sorted(found)


def test_fish_completes() -> None:
    assert run_in("fish", FISH.format(line="vqbeam deco")).split()[:1] == ["decode"]


def test_zsh_completes(tmp_path: Path) -> None:
    assert "vqbeam decode" in run_in("zsh", ZSH.format(line="vqbeam deco", wanted="decode", folder=tmp_path))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_help_says_how_to_turn_it_on(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    assert SHELLS[shell] in " ".join(capsys.readouterr().out.split())


def test_all_commands_are_offered() -> None:
    assert {word.strip() for word in run_in("bash", BASH.format(line="vqbeam ")).splitlines()} >= {*COMMANDS, "help"}
