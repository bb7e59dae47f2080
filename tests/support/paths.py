"""Paths of the repository's files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
EMOJI = ROOT / "models" / "emoji"
SAMPLE = ROOT / "examples" / "emoji" / "sample"
