"""Build the captioned emoji images: `python -m examples.emoji.build_dataset --output DIR`.

Writes DIR/webdataset/emoji-NNNNN.tar and DIR/parquet/emoji-NNNNN.parquet, the same samples in the same order;
with --sample N only N images of the held-out split, chosen to differ, as one tar and one table directly in DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from examples.emoji.combinations import BACKGROUNDS, background_colours, split_combinations
from examples.emoji.compose import canonical, compose_images
from examples.emoji.contrast import contrast
from examples.emoji.glyphs import GlyphSet, load_glyphs
from examples.emoji.samples import Sample, compose, write_parquet, write_tar

SAMPLE_SEED = 7
SAMPLE_MIN_CONTRAST = 75.0
TOO_ALIKE = ("button", "o'clock", "thirty", "square", "skin tone", "arrow", "circle", "sign", "symbol", "input")


def all_pairs(glyphs: GlyphSet) -> tuple[np.ndarray, list[str]]:
    """Every pair of glyph and background in glyph order, with the split of each."""
    split = split_combinations(glyphs.keys)
    pairs = np.concatenate([split.train, split.held_out])
    names = ["train"] * len(split.train) + ["held_out"] * len(split.held_out)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], [names[i] for i in order]


def choose_sample(glyphs: GlyphSet, count: int) -> np.ndarray:
    """`count` held-out pairs of different glyphs, all backgrounds alike often, each glyph clear on its background.

    Glyphs that are hard to tell apart by eye or word (buttons, clock faces, ...) are left to the full set.
    """
    held_out = split_combinations(glyphs.keys).held_out
    held_out = held_out[np.random.default_rng(SAMPLE_SEED).permutation(len(held_out))]
    images, alpha = compose_images(glyphs, held_out, canonical(len(held_out)))
    clear = contrast(images, alpha, background_colours()[held_out[:, 1]]) >= SAMPLE_MIN_CONTRAST
    chosen: list[tuple[int, int]] = []
    taken = dict.fromkeys(range(len(BACKGROUNDS)), 0)
    seen: set[int] = set()
    for (g, b), is_clear in zip(held_out.tolist(), clear, strict=True):
        full = taken[b] >= -(-count // len(BACKGROUNDS))
        if not is_clear or g in seen or full or any(word in glyphs.names[g] for word in TOO_ALIKE):
            continue
        seen.add(g)
        taken[b] += 1
        chosen.append((g, b))
    return np.array(chosen[:count], dtype=np.int64)


def write_full(glyphs: GlyphSet, folder: Path, per_shard: int) -> int:
    """Both forms of the whole set, `per_shard` images a file; returns how many images."""
    pairs, splits = all_pairs(glyphs)
    for name in ("webdataset", "parquet"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, len(pairs), per_shard)):
        end = start + per_shard
        samples = list(compose(glyphs, pairs[start:end], splits[start:end]))
        write_tar(samples, folder / "webdataset" / f"emoji-{shard:05d}.tar")
        write_parquet(samples, folder / "parquet" / f"emoji-{shard:05d}.parquet")
    return len(pairs)


def write_sample(glyphs: GlyphSet, folder: Path, count: int) -> int:
    """A small varied set as emoji-00000.tar and emoji.parquet; returns how many images."""
    pairs = choose_sample(glyphs, count)
    samples: list[Sample] = list(compose(glyphs, pairs, ["held_out"] * len(pairs)))
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(samples, folder / "emoji-00000.tar")
    write_parquet(samples, folder / "emoji.parquet")
    return len(samples)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.build_dataset", description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sample", type=int, metavar="N", help="only N varied held-out images")
    parser.add_argument("--per_shard", type=int, default=2000, help="images a file (default 2000)")
    parser.add_argument("--glyph_cache", type=Path, help="rendered glyphs (.npz); default: OUTPUT/glyphs.npz")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, if not where distributions put it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    glyphs = load_glyphs(args.glyph_cache or args.output / "glyphs.npz", args.font)
    written = (
        write_sample(glyphs, args.output, args.sample)
        if args.sample
        else write_full(glyphs, args.output, args.per_shard)
    )
    print(f"{written} captioned images of {len(glyphs.keys)} glyphs in {args.output}")


if __name__ == "__main__":
    main()
