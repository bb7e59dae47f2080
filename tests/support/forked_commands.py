"""Runs a Python command line program many times, in forks of a process that has imported the large libraries.

Importing torch, Beam and transformers takes longer than a small job. Each fork imports the program itself, as a new
process would.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    *("torch", "apache_beam", "apache_beam.runners.portability.fn_api_runner.fn_runner", "fsspec", "safetensors.torch"),
    *("transformers.models.clip.modeling_clip", "tokenizers", "ftfy", "unidecode", "emoji", "yaml", "numba"),
    *("pyarrow.parquet", "pyarrow.compute", "PIL.Image", "scipy", "tqdm"),
)
PATIENCE = 1800  # seconds, after which a run is killed: its exit code is then that of SIGALRM


class ForkedCommands:
    """Runs `command`, the path of a script that pip made; `environment` is added to that of this process."""

    def __init__(self, command: Path, environment: dict[str, str]) -> None:
        words = [*_interpreter(command), __file__, str(command)]
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )

    def run(self, words: list[str], folder: Path, texts: Path) -> int:
        """Runs the command in `folder` and returns its exit code; its output is appended to the file `texts`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"words": words, "folder": str(folder), "texts": str(texts)}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError("the process that runs the commands has ended; see its messages above")
        return int(answer)

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def _interpreter(command: Path) -> list[str]:
    """The interpreter that the first line of a script names, or else this Python."""
    with open(command, "rb") as file:
        first = file.readline().decode(errors="replace")
    return shlex.split(first[2:]) if first.startswith("#!") and "python" in first else [sys.executable]


def _serve(command: str) -> None:
    """Runs the orders on stdin one after the other, and answers each with its exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print at import, which must not be taken for an answer
    sys.path[0] = str(Path(command).parent)  # as Python has it for the command itself
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become(command, **json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(command: str, words: list[str], folder: str, texts: str) -> NoReturn:
    """Becomes the program, with its arguments, folder and streams."""
    signal.alarm(PATIENCE)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(texts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.argv = [command, *words]
    code = 70
    try:
        runpy.run_path(command, run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
