"""Measure a VQGAN on emoji images that its training never saw.

`python -m examples.emoji.evaluate_vqgan --model models/emoji --output DIR` writes DIR/evaluation.json and contact
sheets. The check runs through the stored weights, in float32, codes and all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.emoji.combinations import BACKGROUNDS, background_colours, split_combinations
from examples.emoji.compose import Placement, canonical, compose_images, jittered
from examples.emoji.contrast import MIN_CONTRAST, contrast
from examples.emoji.glyphs import GlyphSet, load_glyphs
from examples.emoji.measures import block_average, psnr
from examples.emoji.recognition import TWIN_DB, classes, nearest_glyphs, twins
from examples.emoji.sheets import save_sheet
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.checkpoint import open_checkpoint

JITTER_SEED = 11
SHEET_SEED = 3
SHEET_COUNT = 72


@dataclass(frozen=True)
class Measured:
    """Images and what came back: originals and outputs uint8 [N, 64, 64, 3], alpha [N, 64, 64], codes [N, 64]."""

    originals: np.ndarray
    alpha: np.ndarray
    outputs: np.ndarray
    codes: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """PSNR inside the mask, dB, [N]."""
        return psnr(self.originals, self.outputs, self.alpha)


def reconstruct(
    model: TokenizerNetwork, glyphs: GlyphSet, pairs: np.ndarray, at: Placement, batch_size: int = 64
) -> Measured:
    """Compose the images of `pairs` and send them through codes and back."""
    originals, alpha = compose_images(glyphs, pairs, at)
    codes = [model.encode(part) for part in torch.from_numpy(originals).split(batch_size)]
    outputs = torch.cat([model.decode(part) for part in codes])
    return Measured(originals, alpha, outputs.numpy(), torch.cat(codes).numpy())


def decibels(measured: Measured) -> dict[str, float]:
    """Means over images, and how the worst tenth does."""
    baseline = block_average(measured.originals, 8)
    inside = np.sort(measured.inside)
    figures = {
        "inside_mask_db": inside.mean(),
        "inside_mask_db_median": np.median(inside),
        "inside_mask_db_worst_tenth": inside[: max(1, len(inside) // 10)].mean(),
        "whole_picture_db": psnr(measured.originals, measured.outputs).mean(),
        "block_average_inside_mask_db": psnr(measured.originals, baseline, measured.alpha).mean(),
        "block_average_whole_picture_db": psnr(measured.originals, baseline).mean(),
    }
    return {name: round(float(value), 2) for name, value in figures.items()}


def recognition(measured: Measured, pairs: np.ndarray, glyphs: GlyphSet) -> dict[str, Any]:
    """How often the nearest glyph over the asked background is the right one; what was left out, merged, and wrong."""
    names, backgrounds = glyphs.names, list(BACKGROUNDS)
    levels = contrast(measured.originals, measured.alpha, background_colours()[pairs[:, 1]])
    judged = levels >= MIN_CONTRAST
    pairs_of_twins = twins(glyphs)
    label = classes(len(names), pairs_of_twins)
    found = nearest_glyphs(measured.outputs, pairs[:, 1], glyphs)
    right = label[found] == label[pairs[:, 0]]
    exact = found == pairs[:, 0]
    wrong = [
        f"{names[g]} on {backgrounds[b]} -> {names[f]}"
        for (g, b), f in zip(pairs[judged & ~right], found[judged & ~right], strict=True)
    ]
    left_out = [f"{names[g]} on {backgrounds[b]}" for g, b in pairs[~judged]]
    return {
        "right_share": round(float(right[judged].mean()), 4),
        "right_share_without_twins_or_contrast": round(float(exact.mean()), 4),
        "judged": int(judged.sum()),
        "min_contrast_levels": MIN_CONTRAST,
        "twin_db": TWIN_DB,
        "left_out_for_contrast": left_out,
        "twins": [f"{names[i]} = {names[j]} ({db:.1f} dB)" for i, j, db in pairs_of_twins],
        "wrong": wrong,
    }


def evaluate(model: TokenizerNetwork, glyphs: GlyphSet, output: Path) -> dict[str, Any]:
    """All figures on the held-out pairs; contact sheets into `output`."""
    pairs = split_combinations(glyphs.keys).held_out
    centred = reconstruct(model, glyphs, pairs, canonical(len(pairs)))
    rng = np.random.default_rng(JITTER_SEED)
    moved = reconstruct(model, glyphs, pairs, jittered(rng, len(pairs), share=1.0))
    shown = np.random.default_rng(SHEET_SEED).permutation(len(pairs))[:SHEET_COUNT]
    worst = np.argsort(centred.inside)[:SHEET_COUNT]
    output.mkdir(parents=True, exist_ok=True)
    save_sheet(output / "sheet-held-out.png", centred.originals[shown], centred.outputs[shown])
    save_sheet(output / "sheet-worst.png", centred.originals[worst], centred.outputs[worst])
    save_sheet(output / "sheet-jittered.png", moved.originals[shown], moved.outputs[shown])
    used = len(np.unique(centred.codes))
    return {
        "glyphs": len(glyphs.keys),
        "held_out_pictures": len(pairs),
        "canonical": decibels(centred),
        "jittered": decibels(moved),
        "codes_used": used,
        "codes_used_share": round(used / model.config.n_embed, 4),
        "nearest_glyph": recognition(centred, pairs, glyphs),
    }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.evaluate_vqgan", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--output", type=Path, required=True, help="folder for evaluation.json and the sheets")
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    glyphs = load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font)
    model = open_checkpoint(args.model).network().for_inference(torch.device("cpu"), torch.float32)
    figures = evaluate(model, glyphs, args.output)
    (args.output / "evaluation.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    lists = ("left_out_for_contrast", "twins", "wrong")
    short = {k: len(v) if k in lists else v for k, v in figures["nearest_glyph"].items()}
    print(json.dumps({**figures, "nearest_glyph": short}, indent=1))


if __name__ == "__main__":
    main()
