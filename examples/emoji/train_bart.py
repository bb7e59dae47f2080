"""Train the embedded DALL·E BART: `python -m examples.emoji.train_bart --tokens DIR/data --output DIR --steps N`.

Reads the Parquet that `vqbeam encode` wrote. Checkpoints every few minutes into --output and goes on from the last one
when started again with the same folder; with more --steps the schedule is made longer.
"""

from __future__ import annotations

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
from examples.emoji.glyphs import load_glyphs
from examples.emoji.training_captions import clear_pairs
from examples.emoji.training_run import add_caption_flags, run, run_parser
from models.bart.checkpoint import open_bart, save_bart
from models.bart.config import DalleBartConfig
from models.bart.normalizer import TextNormalizer
from models.weights.tokenizer_files import tokenizer_files

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
GENERATION = {"guidance_scale": 2.0}  # as good as any of the curve that examples/emoji/evaluate.py measures
WATCHED = 512  # held-out images that the log's loss is measured on
CACHED_CAPTIONS = 1 << 18


def read_tokens(folder: Path, split: str, clear: frozenset[tuple[str, str]]) -> TokenSet:
    """The rows of one split of what `vqbeam encode` wrote; columns `encoding`, `caption`, `background`, `split`."""
    columns = ["encoding", "caption", "background"]
    table = ds.dataset(folder, format="parquet").to_table(columns, filter=pc.field("split") == split)
    lists = table["encoding"].combine_chunks()
    values = lists.values if isinstance(lists, pa.FixedSizeListArray) else lists.flatten()
    codes = values.to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.int64)
    backgrounds = table["background"].to_pylist()
    things = [subject(text, b) for text, b in zip(table["caption"].to_pylist(), backgrounds, strict=True)]
    seen = [pair in clear for pair in zip(things, backgrounds, strict=True)]
    return TokenSet(torch.from_numpy(codes), things, backgrounds, seen)


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


def main(argv: list[str] | None = None) -> None:
    parser = run_parser("train_bart", __doc__, watch_every=250)
    parser.add_argument("--tokens", type=Path, required=True, help="the data folder of a `vqbeam encode` of the set")
    add_caption_flags(parser)
    parser.add_argument("--text_only", action="store_true", help="of the decoder train only how it reads the text")
    parser.add_argument("--batch_size", type=int, default=BartRecipe.batch_size)
    parser.add_argument("--no_compile", action="store_true", help="no torch.compile: slower, needs no C++ compiler")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    clear = clear_pairs(load_glyphs(args.glyphs))
    tokens, held_out = (read_tokens(args.tokens, split, clear) for split in ("train", "held_out"))
    tokenizer_file = args.output / "tokenizer" / "tokenizer.json"
    if not tokenizer_file.exists():
        known = Tokenizer.from_file(str(args.start / "tokenizer.json")) if args.start else learn(tokens)
        save_tokenizer(known, tokenizer_file.parent)
    encode = caption_encoder(Tokenizer.from_file(str(tokenizer_file)))

    def build(steps: int) -> BartTrainer:
        recipe = BartRecipe(
            steps=steps,
            batch_size=args.batch_size,
            seed=args.seed,
            matrix_rate=BartRecipe.matrix_rate * args.rate,
            other_rate=BartRecipe.other_rate * args.rate,
            dtype=args.dtype,
            text_only=args.text_only,
        )
        trainer = BartTrainer(CONFIG, recipe, tokens, encode, compiled=not args.no_compile)
        if args.start:
            trainer.start_from(open_bart(args.start).load().float().state_dict())
        return trainer

    trainer = run(build, args, lambda trainer: {"held_out_loss": held_out_loss(trainer, held_out)})
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
