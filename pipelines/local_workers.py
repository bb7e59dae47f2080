"""How many workers a local run has, by our flag and by those of Beam's local runner. Imports no Beam."""

from __future__ import annotations

import os
from typing import Any

from pipelines import beam_flags
from transforms.errors import UsageError


def local_workers(beam_args: list[str], workers: int) -> int:
    """The number of workers of a local run: Beam's `--direct_num_workers`, else `workers`; 0 leaves it open.

    Raises `UsageError` if both are given and differ, or if a mode with one worker is asked for several.
    """
    direct = given(beam_args, "direct_num_workers")
    if direct == 0:
        direct = os.cpu_count() or 1
    if direct and workers not in (0, direct):
        raise UsageError(f"--workers {workers} and --direct_num_workers {direct} are two names of one thing: give one")
    number: int = direct or workers
    if number > 1 and given(beam_args, "direct_running_mode") == "in_memory":
        raise UsageError("--direct_running_mode in_memory has one worker: use multi_processing, or leave --workers out")
    return number


def default_workers(device: str) -> int:
    """One per GPU, else one: the threads of one worker use all cores of a CPU."""
    if device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def local_processes(beam_args: list[str], workers: int) -> int:
    """The worker processes of a local run: one each, or one if the workers are threads."""
    return 1 if given(beam_args, "direct_running_mode") == "multi_threading" else workers


def given(beam_args: list[str], name: str) -> Any:
    """The value of an option of Beam's local runner, read without Beam; None if it is not given."""
    named = any(arg.partition("=")[0] == f"--{name}" for arg in beam_args)
    return getattr(beam_flags.options(beam_args), name) if named else None
