"""The error that checkpoint readers and broken weights raise; `models/checkpoints.py` re-exports it."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit its network; the message names the file and what to do."""


def no_numbers(what: str, dtype: str) -> CheckpointError:
    """For weights of which `what` is made, and that are broken or, in float16, too large."""
    narrow = "choose float32 or bfloat16, or " if dtype == "float16" else "its weights are damaged; "
    return CheckpointError(f"{what} that are no numbers in {dtype}: {narrow}copy them again")
