"""Measure the embedded model on phrasings that no training caption has, and on the fixed ones that training has.

`python -m examples.emoji.evaluate_phrasings --model models/emoji --output DIR` draws eight images of each of the 200
prompts of `held_out_phrasings.py`, and of ten prompts of each wording of `caption_variety.py`, at the model's own
guidance, and writes DIR/phrasings.json: by template, how often glyph and background are right.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.emoji import caption_variety
from examples.emoji.contrast import all_contrasts
from examples.emoji.drawing import Artist, Sampling, best_by_clip
from examples.emoji.evaluate import RANKED_SAMPLES, SHEET_COUNT, Judge, share
from examples.emoji.glyphs import GlyphSet, load_glyphs
from examples.emoji.held_out_phrasings import TEMPLATES, Phrase, acceptable, phrases
from examples.emoji.sheets import save_sheet
from models.find import find
from pipelines.process import reuse_freed_memory

KNOWN = (caption_variety.CANONICAL, *caption_variety.VARIANTS, *caption_variety.NO_BACKGROUND)


def judged(judge: Judge, shown: np.ndarray, said: list[Phrase], contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether glyph and background are right, bool [N, samples] each, of images uint8 [N, samples, 64, 64, 3].

    A prompt that names no background has its glyph looked for over the background that the image shows.
    """
    count, samples = shown.shape[:2]
    flat = shown.reshape(-1, *shown.shape[2:])
    found = judge.background(flat)
    asked = np.repeat([one.background for one in said], samples)
    glyph = np.repeat([one.glyph for one in said], samples)
    over = np.where(asked >= 0, asked, found)
    right = np.repeat([acceptable(contrasts, one) for one in said], samples, 0)[np.arange(len(flat)), found]
    return judge.right_glyph(flat, np.stack([glyph, over], 1)).reshape(count, samples), right.reshape(count, samples)


def summary(glyph: np.ndarray, background: np.ndarray, best: np.ndarray) -> dict[str, float]:
    """Shares of what is right in bool [N, samples]: one image, the best by CLIP, and any of them."""
    rows = np.arange(len(best))
    both = glyph & background
    return {
        "prompts": len(best),
        "glyph": share(glyph.ravel()),
        "background": share(background.ravel()),
        "both": share(both.ravel()),
        "glyph_of_the_best_by_clip": share(glyph[rows, best]),
        "background_of_the_best_by_clip": share(background[rows, best]),
        "both_of_the_best_by_clip": share(both[rows, best]),
        "both_of_any": share(both.any(1)),
    }


def measure(folder: Path, judge: Judge, templates: tuple[str, ...], sheet: Path) -> dict[str, Any]:
    """The figures of all prompts of these templates, and of each template; a sheet of what went wrong."""
    contrasts = all_contrasts(judge.glyphs)
    said = phrases(templates, judge.glyphs.names, contrasts)
    prompts = [one.prompt for one in said]
    model = find(str(folder), "")
    artist = Artist(folder, prompts_per_batch=8, samples=RANKED_SAMPLES)
    shown = artist.pixels(artist.codes(prompts, Sampling(float(model.bart.generation["guidance_scale"])), seed=1))
    best = best_by_clip(folder, shown, prompts)
    glyph, background = judged(judge, shown, said, contrasts)
    by_template = {}
    for template in templates:
        rows = np.flatnonzero([one.template == template for one in said])
        by_template[template] = summary(glyph[rows], background[rows], best[rows])
    chosen = np.arange(len(best)), best
    wrong = np.flatnonzero(~(glyph & background)[chosen])[:SHEET_COUNT]
    if len(wrong):
        save_sheet(sheet, shown[chosen][wrong], shown[wrong, 0])
    return {
        "all": summary(glyph, background, best),
        "by_template": by_template,
        "wrong": [prompts[n] for n in wrong],
    }


def evaluate(folder: Path, glyphs: GlyphSet, output: Path) -> dict[str, Any]:
    """Held-out phrasings and the fixed ones of training."""
    judge = Judge(glyphs)
    output.mkdir(parents=True, exist_ok=True)
    return {
        "held_out": measure(folder, judge, TEMPLATES, output / "sheet-held-out-wrong.png"),
        "known": measure(folder, judge, KNOWN, output / "sheet-known-wrong.png"),
    }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.evaluate_phrasings", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model folder: VQGAN, dalle_bart/ and clip/")
    parser.add_argument("--output", type=Path, required=True, help="folder for phrasings.json and the sheets")
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    reuse_freed_memory()
    args = parse(argv)
    torch.set_num_threads(args.threads)
    figures = evaluate(args.model, load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font), args.output)
    (args.output / "phrasings.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
