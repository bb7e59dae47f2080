"""A launcher that is another machine than the workers."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


def make_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes this machine one with GPUs, many cores, and folders of its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 << 30))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    for name in ("VQBEAM_CACHE", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
