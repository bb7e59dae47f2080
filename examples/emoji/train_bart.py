"""Train the embedded DALL·E BART: `python -m examples.emoji.train_bart --tokens DIR/data --output DIR --steps N`.

Reads the Parquet that `vqbeam encode` wrote. Checkpoints every few minutes into --output and goes on from the last one
when started again with the same folder; with more --steps the schedule is made longer.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from tokenizers import Tokenizer

from examples.emoji.bart_trainer import BartRecipe, BartTrainer, Encode, TokenSet, code_loss, padded
from examples.emoji.caption_tokenizer import learn_tokenizer, save_tokenizer
from examples.emoji.caption_variety import all_captions, subject
from models.bart_checkpoints import save_bart
from models.dalle_bart import DalleBartConfig
from models.text_normalizer import TextNormalizer
from models.tokenizer_files import tokenizer_files

PIECES = 2500
CONFIG = DalleBartConfig(
    encoder_vocab_size=PIECES,
    image_vocab_size=1024,
    image_length=64,
    max_text_length=32,
    d_model=256,
    encoder_layers=2,
    encoder_ffn_dim=512,
    encoder_attention_heads=4,
    decoder_layers=4,
    decoder_ffn_dim=640,
    decoder_attention_heads=4,
    decoder_start_token_id=1024,
    normalize_text=True,
)
GENERATION = {"guidance_scale": 2.0}  # best of the curve that examples/emoji/evaluate.py measures
WATCHED = 512  # held-out pictures that the log's loss is measured on
CACHED_CAPTIONS = 1 << 18


def read_tokens(folder: Path, split: str) -> TokenSet:
    """The rows of one split of what `vqbeam encode` wrote; columns `encoding`, `caption`, `background`, `split`."""
    columns = ["encoding", "caption", "background"]
    table = ds.dataset(folder, format="parquet").to_table(columns, filter=pc.field("split") == split)
    lists = table["encoding"].combine_chunks()
    values = lists.values if isinstance(lists, pa.FixedSizeListArray) else lists.flatten()
    codes = values.to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.int64)
    backgrounds = table["background"].to_pylist()
    things = [subject(text, b) for text, b in zip(table["caption"].to_pylist(), backgrounds, strict=True)]
    return TokenSet(torch.from_numpy(codes), things, backgrounds)


def caption_encoder(tokenizer: Tokenizer) -> Encode:
    """A caption to its pieces, normalised as prompts will be."""
    normalize = TextNormalizer()

    @lru_cache(CACHED_CAPTIONS)
    def encode(caption: str) -> list[int]:
        return tokenizer.encode(normalize(caption, caption)).ids

    return encode


def learn(tokens: TokenSet) -> Tokenizer:
    """The tokenizer, from every way to say each thing once and every background."""
    normalize = TextNormalizer()
    backgrounds = sorted(set(tokens.backgrounds))
    things = sorted(set(tokens.things))
    captions = [
        normalize(caption, caption)
        for i, thing in enumerate(things)
        for caption in all_captions(thing, backgrounds[i % len(backgrounds)])
    ]
    return learn_tokenizer(captions, PIECES)


@torch.no_grad()
def held_out_loss(trainer: BartTrainer, tokens: TokenSet) -> float:
    """Nats a code of the averaged weights on a fixed sample of pairs that training never sees."""
    rows = np.random.default_rng(0).permutation(len(tokens.things))[:WATCHED]
    losses = []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        captions = [all_captions(tokens.things[row], tokens.backgrounds[row])[0] for row in part]
        input_ids, mask = padded([trainer.encode(text) for text in captions], trainer.config.max_text_length)
        codes = tokens.codes[torch.from_numpy(part)]
        losses += [float(code_loss(trainer.averaged, input_ids, mask, codes, codes))] * len(part)
    return float(np.mean(losses))


def train(
    trainer: BartTrainer, held_out: TokenSet, folder: Path, *, checkpoint_minutes: float, watch_every: int
) -> None:
    """Take the steps that are left, with a line in DIR/log.jsonl and a checkpoint now and then."""
    stop_at = trainer.recipe.steps
    saved = logged = time.monotonic()
    losses: list[float] = []
    while trainer.step < stop_at:
        losses.append(trainer.advance()["loss"])
        if trainer.step % watch_every == 0 or trainer.step == stop_at:
            line = {
                "step": trainer.step,
                "pictures": trainer.step * trainer.recipe.batch_size,
                "seconds_per_step": round((time.monotonic() - logged) / len(losses), 4),
                "loss": round(sum(losses) / len(losses), 4),
                "held_out_loss": round(held_out_loss(trainer, held_out), 4),
            }
            with open(folder / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            losses, logged = [], time.monotonic()
        if time.monotonic() - saved > checkpoint_minutes * 60 or trainer.step == stop_at:
            save_checkpoint(trainer, folder / "checkpoint.pt")
            saved = time.monotonic()


def save_checkpoint(trainer: BartTrainer, path: Path) -> None:
    """Write the whole state beside `path`, then put it in its place."""
    partial = path.with_name("checkpoint.partial")
    torch.save(trainer.state_dict(), partial)
    os.replace(partial, path)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.train_bart", description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="the data folder of a `vqbeam encode` of the set")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, the log and the model")
    parser.add_argument("--steps", type=int, required=True, help="length of the schedule")
    parser.add_argument("--batch_size", type=int, default=BartRecipe.batch_size)
    parser.add_argument("--seed", type=int, default=BartRecipe.seed)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no_compile", action="store_true", help="no torch.compile: slower, needs no C++ compiler")
    parser.add_argument("--checkpoint_minutes", type=float, default=4.0)
    parser.add_argument("--watch_every", type=int, default=250, help="steps between lines of the log")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    tokens, held_out = read_tokens(args.tokens, "train"), read_tokens(args.tokens, "held_out")
    tokenizer_file = args.output / "tokenizer" / "tokenizer.json"
    if not tokenizer_file.exists():
        save_tokenizer(learn(tokens), tokenizer_file.parent)
    encode = caption_encoder(Tokenizer.from_file(str(tokenizer_file)))
    recipe = BartRecipe(steps=args.steps, batch_size=args.batch_size, seed=args.seed)
    trainer = BartTrainer(CONFIG, recipe, tokens, encode, compiled=not args.no_compile)
    checkpoint = args.output / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load_state_dict(torch.load(checkpoint, weights_only=True))
    print(f"{len(tokens.things)} pictures, step {trainer.step} of {args.steps}", flush=True)
    train(trainer, held_out, args.output, checkpoint_minutes=args.checkpoint_minutes, watch_every=args.watch_every)
    save_bart(
        trainer.averaged,
        args.output / "model",
        name="emoji",
        dtype=torch.bfloat16,
        tokenizer=tokenizer_files(tokenizer_file.parent),
        generation=GENERATION,
    )


if __name__ == "__main__":
    main()
