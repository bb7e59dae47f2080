"""Compiles functions to machine code that later processes find in a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import machine_code, team

FOLDER = Path(__file__).parent
READ = machine_code.hash_of(  # NORM_EPS is compiled too
    *sorted(FOLDER.glob("*.py")), FOLDER.parent / "network.py"
)


def compiled(function: Callable[..., Any]) -> Any:
    return machine_code.compiled(function, read=READ + team.SOURCE)
