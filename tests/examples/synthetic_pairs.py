"""Captioned images of discs with made-up codes: what the training of the CLIP reads, without font or VQGAN."""

from __future__ import annotations

import numpy as np

from examples.emoji.captions import with_article
from examples.emoji.clip_pairs import Pairs
from examples.emoji.combinations import split_combinations
from examples.emoji.compose import canonical, compose_images
from tests.examples.synthetic_glyphs import synthetic_glyphs

CODES = 64


def synthetic_pairs() -> Pairs:
    """Six glyphs on ten backgrounds, 60 pairs, 48 of them for training."""
    glyphs = synthetic_glyphs()
    split = split_combinations(glyphs.keys)
    pairs = np.concatenate([split.train, split.held_out])
    train = np.arange(len(pairs)) < len(split.train)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, train = pairs[order], train[order]
    originals, _ = compose_images(glyphs, pairs, canonical(len(pairs)))
    codes = np.random.default_rng(0).integers(0, 1024, (len(pairs), CODES))
    return Pairs(originals, codes, pairs[:, 0], pairs[:, 1], train, [with_article(name) for name in glyphs.names])
