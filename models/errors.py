"""The errors of models."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be used as asked."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be read or does not fit its network; the message names the file and what to do."""


class ConfigError(ModelError):
    """A model configuration that cannot be built, with the option that is at fault."""


def no_numbers(what: str, dtype: str) -> CheckpointError:
    """The error for weights that make `what`: they are damaged or, in float16, too large."""
    narrow = "choose float32 or bfloat16, or " if dtype == "float16" else "its weights are damaged; "
    return CheckpointError(f"{what} that are no numbers in {dtype}: {narrow}copy them again")
