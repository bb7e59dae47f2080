"""The error that checkpoint readers and broken weights raise; `models/checkpoints.py` re-exports it."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit its network; the message names the file and what to do."""


def no_numbers(what: str, dtype: str) -> CheckpointError:
    """For weights of which `what` is made, and that are broken or too large for `dtype`."""
    return CheckpointError(
        f"{what} that are no numbers in {dtype}: choose float32 or bfloat16, or copy its weights again"
    )
