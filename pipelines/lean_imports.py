"""Imports of seconds made shorter: the collector rests while they last, and Beam finds no packages that a job on this
machine does not use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Beam imports these if they are installed: readers of databases and stores, of which vqbeam uses none, and what knows
# notebooks. It does as well without. (pandas, which it imports as well, is imported by pyarrow anyhow.)
OPTIONAL = ("IPython", "boto3", "bson", "google.cloud", "pymongo")


@contextmanager
def resting_collector() -> Iterator[None]:
    """Within, the garbage collector rests; afterwards it leaves alone what there is by then, such as modules."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if running:
            gc.enable()


@contextmanager
def without_optional() -> Iterator[None]:
    """Within, `OPTIONAL` packages cannot be imported, unless they are already. Python's documented way: an entry of
    None in `sys.modules`."""
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
