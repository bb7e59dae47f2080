"""A lock around numba's parallel code: without OpenMP it ends a process in which two threads call it at once."""

from threading import Lock

ONE_CALL = Lock()
