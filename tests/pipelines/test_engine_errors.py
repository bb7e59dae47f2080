"""One line from what engines say of failed jobs."""

from __future__ import annotations

import pytest

from pipelines.engine_errors import LOST_SCHEDULER, LOST_WORKER, NO_VQBEAM, OTHER_VQBEAM, one_line

CHAINED = """bundle inst003 failed:Traceback (most recent call last):
  File "sdk_worker.py", line 1, in _execute
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 2, in _execute
    raise RuntimeError("two")
RuntimeError: two [while running 'Process-ptransform-12']
"""
JAVA = """java.lang.RuntimeException: The Job server is too old
\tat org.apache.beam.Some.method(Some.java:55)
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no slots", "no slots"),
        ("Pipeline job-1 failed in state FAILED: no slots\nmore", "no slots"),
        (CHAINED, "RuntimeError: two"),
        ("Error:\nTraceback (most recent call last):\n  File\n    x\nKeyError: 3\n", "KeyError: 3"),
        (JAVA, "java.lang.RuntimeException: The Job server is too old"),
        ('Traceback (most recent call last):\n  File "a"\n', "it gave no reason"),
        ("The pool is empty.", "The pool is empty"),
        ("Traceback (most recent call last):\n  x\nRuntimeError: Channel closed prematurely.", LOST_WORKER),
        ("finalize-1 cancelled for reason: scheduler-connection-lost.", LOST_SCHEDULER),
        ("", "it gave no reason"),
        ("ModuleNotFoundError: No module named 'vqbeam'", NO_VQBEAM),
        ("ModuleNotFoundError: No module named 'transforms'", NO_VQBEAM),
        ("ModuleNotFoundError: No module named 'transforms.engine.versions'", OTHER_VQBEAM),
        ("AttributeError: Can't get attribute 'X' on <module 'transforms.engine.job' from ...>", OTHER_VQBEAM),
        ("ModuleNotFoundError: No module named 'numba'", "ModuleNotFoundError: No module named 'numba'"),
    ],
)
def test_the_reason_is_one_line(text, line):
    assert one_line(text) == line


def test_a_long_reason_is_cut():
    assert len(one_line("x" * 10_000)) < 600
