"""Measure a CLIP on pairs of glyph and background that its training never saw.

`python -m examples.emoji.evaluate_clip --model models/emoji/clip --data DIR --tokens DIR --output FILE` reads what
`train_clip` read, decodes the codes in float32, and writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.emoji.caption_variety import CANONICAL, say
from examples.emoji.clip_pairs import Pairs, read_pairs
from examples.emoji.clip_trainer import to_pixels
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.reconstructions import decode_all
from examples.emoji.spoilt_codes import spoil
from models.clip.checkpoint import open_clip_checkpoint
from models.clip.scorer import open_clip_texts
from models.image_tokenizer import ImageTokenizer
from models.vqgan.checkpoint import open_checkpoint

BATCH = 64
SPOILT_SEED = 5
SPOILT_PAIRS = 400
SPOILT_EACH = 7


class Embedder:
    """A CLIP folder as two functions to unit vectors, float32 [N, D]."""

    def __init__(self, folder: Path) -> None:
        checkpoint = open_clip_checkpoint(folder)
        text = checkpoint.config.text_config
        self.model = checkpoint.load()
        self.tokens = open_clip_texts(
            folder,
            length=text.max_position_embeddings,
            vocabulary=text.vocab_size,
            eos_token_id=text.eos_token_id,
        )

    @torch.inference_mode()
    def images(self, rgb: np.ndarray) -> Tensor:
        """uint8 [N, 64, 64, 3], as large as the model takes them."""
        parts = [
            self.model.visual_projection(self.model.vision_model(to_pixels(rgb[n : n + BATCH])).pooler_output)
            for n in range(0, len(rgb), BATCH)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.inference_mode()
    def captions(self, texts: list[str]) -> Tensor:
        ids = torch.from_numpy(self.tokens.encode(texts))
        parts = [self.model.text_projection(self.model.text_model(part).pooler_output) for part in ids.split(BATCH)]
        return F.normalize(torch.cat(parts), dim=-1)


def retrieval(pairs: Pairs, images: Tensor, captions: Tensor, rows: np.ndarray) -> dict[str, float]:
    """How often the best is the right one, for `rows` of the set.

    `images` [N, D] of all pairs; `captions` [B, things, D] of everything on every background.
    """
    thing, background = torch.from_numpy(pairs.thing[rows]), torch.from_numpy(pairs.background[rows])
    mine = images[rows]
    names = torch.stack([captions[b] @ one for b, one in zip(background, mine, strict=True)])  # [rows, things]
    colours = torch.stack([captions[:, t] @ one for t, one in zip(thing, mine, strict=True)])  # [rows, B]
    rank = (names > names.gather(1, thing[:, None])).sum(1)
    found = 0
    for b in range(len(BACKGROUNDS)):
        candidates = np.flatnonzero(pairs.background == b)
        here = torch.from_numpy(np.flatnonzero(pairs.background[rows] == b))
        best = candidates[(captions[b][thing[here]] @ images[candidates].T).argmax(1)]
        found += int((pairs.thing[best] == thing[here].numpy()).sum())
    return {
        "pairs": len(rows),
        "right_name_of_all": float((rank == 0).float().mean()),
        "right_name_in_first_five": float((rank < 5).float().mean()),
        "right_background_of_all": float((colours.argmax(1) == background).float().mean()),
        "right_picture_of_all_on_the_background": found / len(rows),
    }


def whole_before_spoilt(
    pairs: Pairs, tokenizer: ImageTokenizer, embedder: Embedder, rows: np.ndarray
) -> dict[str, float]:
    """How often a caption's own reconstruction scores above `SPOILT_EACH` spoilt versions of it."""
    codes, _ = spoil(pairs, np.repeat(rows, SPOILT_EACH), np.random.default_rng(SPOILT_SEED))
    names = list(BACKGROUNDS)
    captions = embedder.captions(
        [say(CANONICAL, pairs.things[pairs.thing[n]], names[pairs.background[n]]) for n in rows]
    )
    whole = (embedder.images(decode_all(tokenizer, pairs.codes[rows])) * captions).sum(1)
    spoilt = embedder.images(decode_all(tokenizer, codes)).reshape(len(rows), SPOILT_EACH, -1)
    scores = (spoilt * captions[:, None]).sum(2)
    return {
        "pairs": len(rows),
        "versions": SPOILT_EACH,
        "whole_above_all_spoilt": float((whole > scores.amax(1)).float().mean()),
        "whole_above_a_spoilt": float((whole[:, None] > scores).float().mean()),
    }


def evaluate(embedder: Embedder, pairs: Pairs, tokenizer: ImageTokenizer) -> dict[str, dict[str, float]]:
    """All figures, on held-out pairs."""
    held_out = np.flatnonzero(~pairs.train)
    captions = torch.stack(
        [embedder.captions([say(CANONICAL, thing, background) for thing in pairs.things]) for background in BACKGROUNDS]
    )
    sample = np.random.default_rng(SPOILT_SEED).choice(held_out, min(SPOILT_PAIRS, len(held_out)), replace=False)
    reconstructions = embedder.images(decode_all(tokenizer, pairs.codes))
    return {
        "reconstructions": retrieval(pairs, reconstructions, captions, held_out),
        "originals": retrieval(pairs, embedder.images(pairs.originals), captions, held_out),
        "spoilt": whole_before_spoilt(pairs, tokenizer, embedder, sample),
    }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.evaluate_clip", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the folder of the CLIP")
    parser.add_argument("--data", type=Path, required=True, help="the `parquet` folder that build_dataset wrote")
    parser.add_argument("--tokens", type=Path, required=True, help="the `data` folder that `vqbeam encode` wrote")
    parser.add_argument("--vqgan", type=Path, default=Path("models/emoji"), help="the VQGAN of those tokens")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    tokenizer = open_checkpoint(args.vqgan).load(device="cpu", dtype="float32", batch_size=BATCH, threads=args.threads)
    figures = evaluate(Embedder(args.model), read_pairs(args.data, args.tokens), tokenizer)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
