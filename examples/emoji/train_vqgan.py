"""Train the embedded VQGAN: `python -m examples.emoji.train_vqgan --output DIR --minutes N`.

Checkpoints every few minutes into DIR and goes on from the last one when started again with the same DIR.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from examples.emoji.combinations import split_combinations
from examples.emoji.compose import canonical, compose_images
from examples.emoji.glyphs import load_glyphs
from examples.emoji.measures import psnr
from examples.emoji.trainer import Recipe, Trainer
from examples.emoji.training_run import run, run_parser
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.config import VQGANConfig

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
WATCHED = 256  # held-out images that the log's PSNR is measured on


def watch(trainer: Trainer) -> dict[str, float]:
    """The averaged model on a fixed sample of held-out images: dB inside the mask, codes in use there.

    Nothing before the joint stage, as there are no codes.
    """
    if trainer.step <= trainer.recipe.first_joint_step:
        return {}
    pairs = split_combinations(trainer.glyphs.keys).held_out
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:WATCHED]]
    rgb, alpha = compose_images(trainer.glyphs, pairs, canonical(len(pairs)))
    model = trainer.averaged
    with torch.autocast("cpu", torch.bfloat16):
        codes = [model.encode(part) for part in torch.from_numpy(rgb).split(64)]
        outputs = torch.cat([model.decode(part) for part in codes]).numpy()
    inside = psnr(rgb, outputs, alpha)
    return {
        "held_out_db": float(inside.mean()),
        "worst_tenth_db": float(np.sort(inside)[: len(inside) // 10].mean()),
        "codes_used": len(torch.cat(codes).unique()),
    }


def main(argv: list[str] | None = None) -> None:
    parser = run_parser("train_vqgan", __doc__, watch_every=500)
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    parser.add_argument("--no_compile", action="store_true", help="no torch.compile: slower, needs no C++ compiler")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    glyphs = load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font)

    def build(steps: int) -> Trainer:
        return Trainer(CONFIG, Recipe(steps=steps, seed=args.seed), glyphs, compiled=not args.no_compile)

    trainer = run(build, args, watch)
    save_vqgan(trainer.averaged, args.output / "model", name="emoji", dtype=torch.float16)


if __name__ == "__main__":
    main()
