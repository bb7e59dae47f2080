"""What pytest loads before any test: the fixtures, and the first line of every run, on the units of the processor."""

from __future__ import annotations

import pytest

from benchmarks.support.machine import units

pytest_plugins = ("tests.support.fixtures",)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Not by pytest's own header, which `-q` leaves out."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(units())
