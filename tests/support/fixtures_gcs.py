"""The fixture `gcs_bucket`: an emulated Google Cloud Storage in a process of its own.

A test module asks for it with `pytest_plugins = ("tests.support.fixtures_gcs",)`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # read when gcsfs is imported; else it asks the real service

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
            process_gone_or_wait(process)


def process_gone_or_wait(process: subprocess.Popen[bytes], seconds: float = 0.05) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@pytest.fixture(scope="module")
def gcs_bucket() -> Iterator[str]:
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
