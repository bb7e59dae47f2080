"""What other packages say of themselves stays off the screen; what they say of the data does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WARN = """
import logging, warnings
from pipelines.process import quiet_logging
quiet_logging()
warnings.warn_explicit("grpcio is old", FutureWarning, "grpc.py", 43, module="google.auth.transport.grpc")
warnings.warn_explicit("a file is odd", UserWarning, "tiff.py", 1, module="PIL.TiffImagePlugin")
logging.getLogger("fsspec").warning("slow")
"""


@pytest.mark.parametrize(("flags", "shown"), [((), False), (("-W", "default"), True)])
def test_googles_outlook_is_shown_to_those_who_ask_for_warnings(flags: tuple[str, ...], shown: bool) -> None:
    command = [sys.executable, *flags, "-c", WARN]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert ("grpcio is old" in ended.stderr) == shown
    assert "a file is odd" in ended.stderr
    assert "WARNING: slow" in ended.stderr
