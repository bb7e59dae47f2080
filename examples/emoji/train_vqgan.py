"""Train the embedded VQGAN: `python -m examples.emoji.train_vqgan --output DIR --minutes N`.

Checkpoints every few minutes into DIR and goes on from the last one when started again with the same DIR.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from examples.emoji.combinations import split_combinations
from examples.emoji.compose import canonical, pictures
from examples.emoji.glyphs import GlyphSet, load_glyphs
from examples.emoji.measures import psnr
from examples.emoji.trainer import Recipe, Trainer
from models.checkpoints import save_vqgan
from models.vqgan import VQGANConfig

CONFIG = VQGANConfig(
    ch=32,
    ch_mult=(2, 1, 2, 4),
    num_res_blocks=1,
    attn_resolutions=(),
    resolution=64,
    z_channels=64,
    embed_dim=8,
    n_embed=1024,
    pixel_range=(-1.0, 1.0),
)
TIMING_STEPS = 20
WATCHED = 256  # held-out pictures that the log's PSNR is measured on
PARTIAL = "checkpoint.partial"


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the whole state beside `path`, then put it in its place."""
    partial = path.with_name(PARTIAL)
    torch.save(trainer.state_dict(), partial)
    os.replace(partial, path)


def watch(trainer: Trainer, glyphs: GlyphSet) -> dict[str, float]:
    """The averaged model on a fixed sample of held-out pictures: dB inside the mask, codes in use there."""
    pairs = split_combinations(glyphs.keys).held_out
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:WATCHED]]
    rgb, alpha = pictures(glyphs, pairs, canonical(len(pairs)))
    model = trainer.averaged
    with torch.autocast("cpu", torch.bfloat16):
        codes = [model.encode(part) for part in torch.from_numpy(rgb).split(64)]
        outputs = torch.cat([model.decode(part) for part in codes]).numpy()
    inside = psnr(rgb, outputs, alpha)
    return {
        "held_out_db": round(float(inside.mean()), 3),
        "worst_tenth_db": round(float(np.sort(inside)[: len(inside) // 10].mean()), 3),
        "codes_used": len(torch.cat(codes).unique()),
    }


def steps_in(minutes: float, recipe: Recipe, glyphs: GlyphSet) -> int:
    """How many steps fit into `minutes` on this machine, timed on a trainer that is thrown away."""
    trial = Trainer(CONFIG, dataclasses.replace(recipe, steps=1_000_000), glyphs)
    trial.advance()
    start = time.monotonic()
    for _ in range(TIMING_STEPS):
        trial.advance()
    return max(100, int(minutes * 60 * TIMING_STEPS / (time.monotonic() - start)))


def train(trainer: Trainer, folder: Path, *, checkpoint_minutes: float, watch_every: int, stop_at: int) -> None:
    """Take steps until `stop_at`, with a line in DIR/log.jsonl and a checkpoint now and then."""
    saved = logged = time.monotonic()
    sums: dict[str, list[float]] = {}
    while trainer.step < stop_at:
        for name, value in trainer.advance().items():
            sums.setdefault(name, []).append(value)
        if trainer.step % watch_every == 0 or trainer.step == stop_at:
            now = time.monotonic()
            line: dict[str, float] = {"step": trainer.step, "seconds_per_step": (now - logged) / len(sums["loss"])}
            line |= {name: sum(values) / len(values) for name, values in sums.items()}
            if trainer.step > trainer.recipe.first_joint_step:
                line |= watch(trainer, trainer.glyphs)
            line = {name: round(value, 4) for name, value in line.items()}
            with open(folder / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            sums, logged = {}, time.monotonic()
        if time.monotonic() - saved > checkpoint_minutes * 60 or trainer.step == stop_at:
            save_checkpoint(trainer, folder / "checkpoint.pt")
            saved = time.monotonic()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.train_vqgan", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, the log and the model")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the schedule, from a short timing on this machine")
    length.add_argument("--steps", type=int, help="length of the schedule in steps: the same on every machine")
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no_compile", action="store_true", help="no torch.compile: slower, needs no C++ compiler")
    parser.add_argument("--checkpoint_minutes", type=float, default=4.0)
    parser.add_argument("--watch_every", type=int, default=500, help="steps between lines of the log")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    glyphs = load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font)
    checkpoint = args.output / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if args.steps:
        steps = args.steps
    elif state:
        steps = state["recipe"]["steps"]
    else:
        steps = steps_in(args.minutes, Recipe(steps=1, seed=args.seed), glyphs)
    trainer = Trainer(CONFIG, Recipe(steps=steps, seed=args.seed), glyphs, compiled=not args.no_compile)
    if state:
        trainer.load_state_dict(state)
        del state
    print(f"{len(glyphs.keys)} glyphs, step {trainer.step} of {steps}", flush=True)
    train(trainer, args.output, checkpoint_minutes=args.checkpoint_minutes, watch_every=args.watch_every, stop_at=steps)
    save_vqgan(trainer.averaged, args.output / "model", name="emoji", dtype=torch.float16)


if __name__ == "__main__":
    main()
