"""A run of any of the three trainers: its flags, its loop with log and checkpoints, and how it resumes."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

CHECKPOINT = "checkpoint.pt"
TIMING_STEPS = 10
TRIAL_STEPS = 1_000_000  # of the recipe that is timed: it is at its beginning


class Trainer(Protocol):
    """State at one step of a recipe; `advance` takes the step and returns what there is to log."""

    step: int

    def advance(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


AnyTrainer = TypeVar("AnyTrainer", bound=Trainer)


def run_parser(command: str, description: str | None, *, watch_every: int) -> argparse.ArgumentParser:
    """The flags that every run has."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.emoji.{command}", description=description)
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, the log and the model")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the schedule, from a short timing on this machine")
    length.add_argument("--steps", type=int, help="length of the schedule in steps: the same on every machine")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoint_minutes", type=float, default=4.0)
    parser.add_argument("--watch_every", type=int, default=watch_every, help="steps between lines of the log")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def add_caption_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a run that learns from captions."""
    parser.add_argument("--glyphs", type=Path, required=True, help="glyphs.npz in the output of build_dataset")
    parser.add_argument(
        "--start", type=Path, metavar="DIR", help="a trained model whose weights and pieces to go on from"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor on the learning rates; less than 1 with --start"
    )
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="of the products: float32 is faster where the processor has no matrix unit",
    )


def run(
    build: Callable[[int], AnyTrainer],
    args: argparse.Namespace,
    watch: Callable[[AnyTrainer], dict[str, float]] = lambda _: {},
) -> AnyTrainer:
    """What `build` makes for a number of steps, after them, begun at the checkpoint in `--output` where there is one.

    The number is `--steps`, else that of the checkpoint, else what fits into `--minutes` on this machine.
    """
    path = args.output / CHECKPOINT
    state = torch.load(path, weights_only=True) if path.exists() else None
    steps = args.steps or (state["recipe"]["steps"] if state else steps_in(args.minutes, build(TRIAL_STEPS)))
    trainer = build(steps)
    if state:
        trainer.load_state_dict(state)
        del state
    print(f"step {trainer.step} of {steps}", flush=True)
    train(trainer, steps, args.output, args.checkpoint_minutes, args.watch_every, watch)
    return trainer


def steps_in(minutes: float, trainer: Trainer) -> int:
    """How many steps fit into `minutes` on this machine, timed on a trainer that is thrown away."""
    trainer.advance()
    began = time.monotonic()
    for _ in range(TIMING_STEPS):
        trainer.advance()
    return max(100, int(minutes * 60 * TIMING_STEPS / (time.monotonic() - began)))


def train(
    trainer: AnyTrainer,
    steps: int,
    folder: Path,
    checkpoint_minutes: float,
    watch_every: int,
    watch: Callable[[AnyTrainer], dict[str, float]],
) -> None:
    """Take the steps that are left, with a checkpoint and a line in DIR/log.jsonl, `watch` included, now and then."""
    saved = logged = time.monotonic()
    values: dict[str, list[float]] = {}
    logged_step = trainer.step
    while trainer.step < steps:
        for name, value in trainer.advance().items():
            values.setdefault(name, []).append(value)
        if trainer.step % watch_every == 0 or trainer.step == steps:
            line = {"seconds_per_step": (time.monotonic() - logged) / (trainer.step - logged_step)}
            line |= {name: sum(found) / len(found) for name, found in values.items()} | watch(trainer)
            text = json.dumps({"step": trainer.step} | {name: round(value, 4) for name, value in line.items()})
            with open(folder / "log.jsonl", "a") as log:
                log.write(text + "\n")
            print(text, flush=True)
            values, logged, logged_step = {}, time.monotonic(), trainer.step
        if time.monotonic() - saved > checkpoint_minutes * 60 or trainer.step == steps:
            save_checkpoint(trainer, folder)
            saved = time.monotonic()


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Writes the whole state beside the checkpoint of `folder`, then replaces it."""
    partial = folder / "checkpoint.partial"
    torch.save(trainer.state_dict(), partial)
    os.replace(partial, folder / CHECKPOINT)
