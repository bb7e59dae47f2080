"""Measure the embedded model: does a prompt's image show the right glyph on the right background?

`python -m examples.emoji.evaluate --model models/emoji --output DIR` draws 200 glyphs on ten backgrounds at the model's
own guidance, some of them at others, too, and writes DIR/evaluation.json and contact sheets. A fifth of the
combinations were never trained on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.emoji.captions import caption
from examples.emoji.combinations import BACKGROUNDS, background_colours, held_out_backgrounds
from examples.emoji.compose import RESOLUTION, canonical, compose_images
from examples.emoji.contrast import MIN_CONTRAST, contrast
from examples.emoji.drawing import Artist, Sampling, best_by_clip
from examples.emoji.glyphs import GlyphSet, load_glyphs
from examples.emoji.recognition import classes, nearest_glyphs, twins
from examples.emoji.sheets import save_sheet
from models.find import find
from pipelines.process import reuse_freed_memory

GLYPHS = 200
CHOICE_SEED = 5
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
BORDER = 3  # pixels along the edge that no glyph reaches
SUBSET = 500  # of the pairs: for the curve over scales and the ranking at the highest scale
RANKED_SAMPLES = 8
SHEET_COUNT = 72


@dataclass(frozen=True)
class Pairs:
    """The combinations asked for: indices int64 [N, 2] of glyph and background, and what is known about each."""

    indices: np.ndarray
    seen: np.ndarray  # bool [N]: trained on
    visible: np.ndarray  # bool [N]: the glyph differs enough from the background to be judged
    prompts: list[str]
    originals: np.ndarray  # uint8 [N, 64, 64, 3]

    def take(self, rows: np.ndarray) -> Pairs:
        return Pairs(
            self.indices[rows], self.seen[rows], self.visible[rows], [self.prompts[i] for i in rows],
            self.originals[rows],
        )  # fmt: skip


class Judge:
    """Says which glyph and which background an image shows."""

    def __init__(self, glyphs: GlyphSet) -> None:
        self.glyphs = glyphs
        self.label = classes(len(glyphs.keys), twins(glyphs))

    def right_glyph(self, shown: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """bool [N]: the nearest of all glyphs over the asked background is the asked one, or a twin of it."""
        found = nearest_glyphs(shown, indices[:, 1], self.glyphs)
        return self.label[found] == self.label[indices[:, 0]]

    def right_background(self, shown: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """bool [N]: the background that an image shows is the asked one."""
        return self.background(shown) == indices[:, 1]

    def background(self, shown: np.ndarray) -> np.ndarray:
        """int64 [N]: which of the ten the mean colour along the edge is nearest to."""
        inner = slice(BORDER, RESOLUTION - BORDER)
        edge = np.ones((RESOLUTION, RESOLUTION), bool)
        edge[inner, inner] = False
        mean = shown[:, edge].astype(np.float64).mean(1)
        distance = ((mean[:, None] - background_colours()[None].astype(np.float64)) ** 2).sum(-1)
        return distance.argmin(1)


def choose_pairs(glyphs: GlyphSet, count: int) -> Pairs:
    """`count` glyphs chosen by a fixed seed, on every background."""
    chosen = np.sort(np.random.default_rng(CHOICE_SEED).permutation(len(glyphs.keys))[:count])
    names = list(BACKGROUNDS)
    indices = np.array([(g, b) for g in chosen for b in range(len(names))], dtype=np.int64)
    originals, alpha = compose_images(glyphs, indices, canonical(len(indices)))
    return Pairs(
        indices,
        np.array([names[b] not in held_out_backgrounds(glyphs.keys[g]) for g, b in indices]),
        contrast(originals, alpha, background_colours()[indices[:, 1]]) >= MIN_CONTRAST,
        [caption(glyphs.names[g], names[b]) for g, b in indices],
        originals,
    )


def shares(judge: Judge, shown: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """Shares of right glyphs (of those that can be seen) and right backgrounds, trained and held-out pairs apart."""
    glyph = judge.right_glyph(shown, pairs.indices)
    background = judge.right_background(shown, pairs.indices)
    seen, visible = pairs.seen, pairs.visible
    return {
        "glyph": share(glyph[visible]),
        "glyph_trained": share(glyph[visible & seen]),
        "glyph_held_out": share(glyph[visible & ~seen]),
        "background": share(background),
        "background_trained": share(background[seen]),
        "background_held_out": share(background[~seen]),
    }


def share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4) if len(right) else float("nan")


def ranked(judge: Judge, folder: Path, pairs: Pairs, sampling: Sampling) -> dict[str, Any]:
    """Of 8 images a prompt, how often one, the one that CLIP scores highest, and any of them is right. The first two
    again for the prompts that CLIP can help, those with both right and wrong images."""
    artist = Artist(folder, prompts_per_batch=8, samples=RANKED_SAMPLES)
    shown = artist.pixels(artist.codes(pairs.prompts, sampling, seed=1))
    best = best_by_clip(folder, shown, pairs.prompts)
    right = np.stack([judge.right_glyph(shown[:, s], pairs.indices) for s in range(RANKED_SAMPLES)], 1)
    right = right[pairs.visible]
    chosen = right[np.arange(len(right)), best[pairs.visible]]
    mixed = right.any(1) & ~right.all(1)
    return {
        "samples": RANKED_SAMPLES,
        "pairs": int(pairs.visible.sum()),
        "glyph_of_a_sample": share(right.ravel()),
        "glyph_of_the_first": share(right[:, 0]),
        "glyph_of_the_best_by_clip": share(chosen),
        "glyph_of_any": share(right.any(1)),
        "pairs_right_and_wrong": int(mixed.sum()),
        "glyph_of_a_sample_of_these": share(right[mixed].ravel()),
        "glyph_of_the_best_by_clip_of_these": share(chosen[mixed]),
        "background_of_the_best_by_clip": share(
            judge.right_background(shown[np.arange(len(shown)), best], pairs.indices)
        ),
    }


def evaluate(folder: Path, glyphs: GlyphSet, output: Path, count: int, base: Sampling) -> dict[str, Any]:
    """All figures; sheets of random and of wrong images (original above, drawn below) into `output`."""
    judge = Judge(glyphs)
    pairs = choose_pairs(glyphs, count)
    artist = Artist(folder)
    ceiling = shares(judge, artist.pixels(reconstructed(artist, pairs.originals)), pairs)
    few = pairs.take(np.sort(np.random.default_rng(CHOICE_SEED).permutation(len(pairs.prompts))[:SUBSET]))
    curve: dict[float, dict[str, float]] = {}
    for scale in SCALES:
        sampling = replace(base, guidance_scale=scale)
        curve[scale] = shares(judge, artist.pixels(artist.codes(few.prompts, sampling)[:, 0]), few)
        print(scale, curve[scale], flush=True)
    sampling = replace(base, guidance_scale=float(find(str(folder), "").bart.generation["guidance_scale"]))
    shown = artist.pixels(artist.codes(pairs.prompts, sampling)[:, 0])
    output.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0).permutation(len(shown))[:SHEET_COUNT]
    save_sheet(output / "sheet-random.png", pairs.originals[random], shown[random])
    wrong = np.flatnonzero(~judge.right_glyph(shown, pairs.indices) & pairs.visible)
    if len(wrong):
        wrong = np.random.default_rng(0).permutation(wrong)[:SHEET_COUNT]
        save_sheet(output / "sheet-wrong.png", pairs.originals[wrong], shown[wrong])
    return {
        "glyphs": count,
        "pairs": len(pairs.prompts),
        "pairs_judged": int(pairs.visible.sum()),
        "pairs_held_out": int((~pairs.seen).sum()),
        "sampling": {"temperature": base.temperature, "top_k": base.top_k, "top_p": base.top_p},
        "guidance_scale": sampling.guidance_scale,
        "drawn": shares(judge, shown, pairs),
        "reconstruction": ceiling,
        "ranked": ranked(judge, folder, pairs, sampling),
        "ranked_at_highest_scale": ranked(judge, folder, few, replace(base, guidance_scale=max(SCALES))),
        "curve": {str(scale): values for scale, values in curve.items()},
    }


def reconstructed(artist: Artist, originals: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] -> the codes that the VQGAN gives them, int32 [N, T]."""
    size = artist.tokenizer.batch_size
    return np.concatenate([artist.tokenizer.encode(originals[i : i + size]) for i in range(0, len(originals), size)])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model folder: VQGAN, dalle_bart/ and clip/")
    parser.add_argument("--output", type=Path, required=True, help="folder for evaluation.json and the sheets")
    parser.add_argument("--glyphs", type=int, default=GLYPHS, help=f"how many glyphs (default {GLYPHS})")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=50)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    reuse_freed_memory()
    args = parse(argv)
    torch.set_num_threads(args.threads)
    glyphs = load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font)
    sampling = Sampling(1.0, args.temperature, args.top_k, args.top_p)
    figures = evaluate(args.model, glyphs, args.output, args.glyphs, sampling)
    (args.output / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
