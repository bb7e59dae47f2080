"""The error that every checkpoint reader raises; `models/checkpoints.py` re-exports it."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit its network; the message names the file and what to do."""
