"""An emulated Google Cloud Storage in another process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import gcsfs
import pytest

EMULATOR = Path(__file__).with_name("gcs_emulator.py")
BUCKET = "bucket"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the emulator ended"
            assert time.monotonic() < deadline, "the emulator does not answer"
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)


@contextmanager
def emulated_bucket() -> Iterator[str]:
    """`gs://bucket`, empty, for this process and those that it starts."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(EMULATOR), str(port), BUCKET], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    host = f"http://localhost:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", host)
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        gcsfs.GCSFileSystem.clear_instance_cache()
        try:
            wait_until_up(f"{host}/storage/v1/b/{BUCKET}", process)
            yield f"gs://{BUCKET}"
        finally:
            process.terminate()
            process.wait()
            gcsfs.GCSFileSystem.clear_instance_cache()
