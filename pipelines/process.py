"""Settings of a process that runs networks with Beam: its cores, its memory allocator and what it logs."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.terminal import shown

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
LARGEST = 1 << 28  # bytes of one array of activations; what is larger still comes from and goes to the system
KEPT = 1 << 30  # bytes of free memory that the process holds on to
SILENT = logging.CRITICAL + 1
BEAM_FOLDER = f"{os.sep}apache_beam{os.sep}"
ENGINES = (
    "PrismRunner",
    "SdkWorker",
    "PrismJobServer",
    "FlinkJarJobServer",
    "SparkJarJobServer",
    "distributed",
)  # names of loggers


class _Shown(logging.Formatter):
    """Formats records without control characters from data."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reuse_freed_memory() -> bool:
    """Has glibc keep freed memory for the next layer; to be called before a process starts its first thread.

    By default each array above 32 MiB is mapped and unmapped anew, and its pages are cleared by the kernel
    (`benchmarks.encode --peers_reuse_memory` shows what that costs a network). Arenas of threads cannot hold such
    arrays, so there is one arena. Returns False and changes nothing if the C library is another.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEPT), (M_ARENA_MAX, 1))
    return all(library.mallopt(name, value) == 1 for name, value in settings)


def quiet_logging(prefix: str = "", beam_level: int = logging.ERROR) -> None:
    """Logs warnings to stderr, but from Beam only what is at or above `beam_level`: its start-up logs say nothing.

    Call it before Beam is imported: Beam logs at import. Up to Beam 2.71, which holds grpcio back, Google's packages
    warn in every process of what they will need one day; `python -W` still shows that. A root logger that has handlers
    already is left alone.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.", append=True)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its library writes to stderr by itself if a service goes away
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Shown(f"{prefix}%(levelname)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: BEAM_FOLDER not in record.pathname or record.levelno >= beam_level)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("gcsfs").setLevel(SILENT)  # a traceback for each failure; ours are reasons of failed shards


@contextmanager
def hushed() -> Iterator[None]:
    """Silences what Beam and an engine log of a job, and the traces of their threads: its end is told by others.

    It stays silent after an exception: those threads notice late.
    """
    before = threading.excepthook
    handlers = list(logging.getLogger().handlers)
    threading.excepthook = lambda args: None
    for handler in handlers:
        handler.addFilter(_is_ours)
    yield
    threading.excepthook = before
    for handler in handlers:
        handler.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return BEAM_FOLDER not in record.pathname and not record.name.startswith(ENGINES)
