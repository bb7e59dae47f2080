"""Each range in setup.py has a lower bound, and `make test-oldest` installs it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version


def lower_bounds(*extras: str) -> dict[str, Version | None]:
    """The lowest version of each package that vqbeam requires, also for some of its extras."""
    bounds: dict[str, Version | None] = {}
    for line in metadata.requires("vqbeam") or []:
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            lowest = [Version(part.version) for part in wanted.specifier if part.operator in (">=", "==")]
            bounds[wanted.name] = lowest[0] if lowest else bounds.get(wanted.name)
    return bounds


def test_every_package_has_a_lower_bound() -> None:
    extras = metadata.metadata("vqbeam").get_all("Provides-Extra") or []
    bounds = lower_bounds(*extras)
    assert {"apache-beam", "torch", "numba", "pytest", "jax"} <= bounds.keys()
    assert [name for name, lowest in bounds.items() if lowest is None] == []


@pytest.mark.skipif(Path(sys.prefix).name != ".venv-oldest", reason="for make test-oldest")
def test_the_lower_bounds_are_what_is_installed() -> None:
    for name, lowest in lower_bounds("cpu", "test").items():
        assert lowest is not None
        installed = Version(metadata.version(name))
        assert installed.release[: len(lowest.release)] == lowest.release, f"{name} {installed}, not {lowest}"
