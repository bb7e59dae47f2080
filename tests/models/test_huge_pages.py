"""Large pages under arrays that are there already."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from models.huge_pages import collapse_into_huge_pages


def large_page_bytes() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"AnonHugePages:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def test_arrays_move_and_keep_their_values() -> None:
    values = torch.arange(1 << 22)
    moved = collapse_into_huge_pages()
    assert torch.equal(values, torch.arange(1 << 22))
    if moved:  # elsewhere the system cannot, or has large pages only
        assert large_page_bytes() >= 1 << 24
