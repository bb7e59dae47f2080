"""A real bash whose `vqbeam` runs in this process: the shell parses a page's commands as it does for a reader.

`vqbeam` on the PATH of that bash is a stub that sends its words here and waits for output and exit code, so that the
commands of a page need not each import vqbeam.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

STUB = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([os.getcwd(), sys.argv[1:]]).encode() + b"\\n")
    code, out, err = json.loads(server.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""
LOOK_SECONDS = 0.2
# Programs that pages name and tests do not run: each writes its words into the file `called`. `git clone` and
# `python -m venv` leave the folders that are gone into.
OTHERS = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> {called}
case "$(basename "$0") $1 $2" in
  "git clone "*) mkdir -p "${{@: -1}}" ;;
  "python3.11 -m venv") mkdir -p "$3/bin" && touch "$3/bin/activate" ;;
esac
"""


def run_in_bash(
    script: str, vqbeam: Callable[[list[str]], int], folder: Path, others: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs `script` in bash, which stops at the first failing command; `vqbeam(argv)` runs the command.

    The programs `others` do nothing; what they were called with is in the file `.programs/called`.
    """
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name in others:
        (programs / name).write_text(OTHERS.format(called=programs / "called"))
        (programs / name).chmod(0o755)
    address = str(programs / "socket")
    stub = programs / "vqbeam"
    stub.write_text(STUB.format(python=sys.executable, address=address))
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with (
        socket.socket(socket.AF_UNIX) as server,
        (programs / "out").open("w+") as out,
        (programs / "err").open("w+") as err,
    ):
        server.bind(address)
        server.listen()
        server.settimeout(LOOK_SECONDS)
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, stdout=out, stderr=err, text=True
        )
        while shell.poll() is None:
            try:
                caller, _ = server.accept()
            except TimeoutError:
                continue
            with caller:
                _answer(caller, vqbeam)
        os.remove(address)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(shell.args, shell.returncode, out.read(), err.read())


def _answer(caller: socket.socket, vqbeam: Callable[[list[str]], int]) -> None:
    caller.settimeout(None)
    folder, argv = json.loads(caller.makefile().readline())
    out, err = StringIO(), StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = vqbeam(argv)
    finally:
        os.chdir(before)
    caller.sendall(json.dumps([code, out.getvalue(), err.getvalue()]).encode())
    caller.shutdown(socket.SHUT_WR)
