"""Train the embedded CLIP: `python -m examples.emoji.train_clip --data DIR --tokens DIR --output DIR --minutes N`.

`--data` is what `build_dataset` wrote, `--tokens` what `vqbeam encode` made of it. Checkpoints every few minutes into
the output folder and goes on from the last one when started again with the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from transformers import CLIPConfig

from examples.emoji.caption_variety import all_captions
from examples.emoji.clip_pairs import Pairs, read_pairs
from examples.emoji.clip_tokenizer import BOS_ID, EOS_ID, PAD_ID, learn_clip_tokenizer, save_clip_tokenizer
from examples.emoji.clip_trainer import ClipRecipe, ClipTrainer, Pool
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.reconstructions import decode_all, kept_in
from examples.emoji.spoilt_codes import spoil
from models.codec import ImageCodec, open_codec

PIECES = 2048
DECODE_BATCH = 32
TIMING_STEPS = 8
LOG_EVERY = 50  # steps
MAX_TEXT_LENGTH = 32  # tokens
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_TEXT_LENGTH,
    "hidden_act": "gelu",
}
VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "image_size": 64,
    "patch_size": 16,
    "hidden_act": "gelu",
}
PROJECTION = 128
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 64},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def learn_from(pairs: Pairs) -> Tokenizer:
    """The tokenizer of all ways to say the captions of the training split."""
    names = list(BACKGROUNDS)
    return learn_clip_tokenizer(
        (
            caption
            for row in np.flatnonzero(pairs.train)
            for caption in all_captions(pairs.things[pairs.thing[row]], names[pairs.background[row]])
        ),
        PIECES,
    )


def clip_config(tokenizer: Tokenizer) -> CLIPConfig:
    """The shape of the network, for this vocabulary."""
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    return CLIPConfig(
        text_config={**TEXT, **ids, "vocab_size": tokenizer.get_vocab_size(), "projection_dim": PROJECTION},
        vision_config={**VISION, "projection_dim": PROJECTION},
        projection_dim=PROJECTION,
    )


def make_pool(pairs: Pairs, codec: ImageCodec, recipe: ClipRecipe, folder: Path) -> Pool:
    """Decode what training shows, once: the arrays stay in `folder` and are mapped from there."""
    rows = np.tile(np.flatnonzero(pairs.train), recipe.spoilt_versions)
    codes, kept = spoil(pairs, rows, np.random.default_rng(recipe.seed))
    return Pool(
        reconstructions=kept_in(folder / "reconstructions.npy", lambda: decode_all(codec, pairs.codes)),
        spoilt=kept_in(folder / "spoilt.npy", lambda: decode_all(codec, codes)),
        kept=kept,
    )


def save_checkpoint(trainer: ClipTrainer, path: Path) -> None:
    """Write the whole state beside `path`, then put it in its place."""
    partial = path.with_name("checkpoint.partial")
    torch.save(trainer.state_dict(), partial)
    os.replace(partial, path)


def save_clip(trainer: ClipTrainer, folder: Path) -> None:
    """The folder that transformers and `models/clip.py` read, with float16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to(torch.float16).contiguous() for name, value in trainer.model.state_dict().items()
    }
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    save_clip_tokenizer(trainer.tokenizer, folder, MAX_TEXT_LENGTH)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    values = {**trainer.config.to_diff_dict(), "architectures": ["CLIPModel"], "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def steps_in(minutes: float, trainer: ClipTrainer) -> int:
    """How many steps fit into `minutes` on this machine, timed on a trainer that is thrown away."""
    trainer.advance()
    start = time.monotonic()
    for _ in range(TIMING_STEPS):
        trainer.advance()
    return max(100, int(minutes * 60 * TIMING_STEPS / (time.monotonic() - start)))


def train(trainer: ClipTrainer, folder: Path, checkpoint_minutes: float) -> None:
    """Take the steps of the recipe, with a line in DIR/log.jsonl and a checkpoint now and then."""
    saved = logged = time.monotonic()
    sums: dict[str, list[float]] = {}
    while trainer.step < trainer.recipe.steps:
        for name, value in trainer.advance().items():
            sums.setdefault(name, []).append(value)
        last = trainer.step == trainer.recipe.steps
        now = time.monotonic()
        if trainer.step % LOG_EVERY == 0 or last:
            line = {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
            line = {"step": trainer.step, "seconds_per_step": round((now - logged) / len(sums["norm"]), 3), **line}
            with open(folder / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            sums, logged = {}, now
        if now - saved > checkpoint_minutes * 60 or last:
            save_checkpoint(trainer, folder / "checkpoint.pt")
            saved = now


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.emoji.train_clip", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the `parquet` folder that build_dataset wrote")
    parser.add_argument("--tokens", type=Path, required=True, help="the `data` folder that `vqbeam encode` wrote")
    parser.add_argument("--vqgan", type=Path, default=Path("models/emoji"), help="the VQGAN of those tokens")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, the log and the model")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the schedule, from a short timing on this machine")
    length.add_argument("--steps", type=int, help="length of the schedule in steps: the same on every machine")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoint_minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    pairs = read_pairs(args.data, args.tokens)
    tokenizer = learn_from(pairs)
    config = clip_config(tokenizer)
    codec = open_codec(args.vqgan, device="cpu", dtype="bfloat16", batch_size=DECODE_BATCH, threads=args.threads)
    pool = make_pool(pairs, codec, ClipRecipe(steps=1, seed=args.seed), args.output)
    checkpoint = args.output / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if args.steps:
        steps = args.steps
    elif state:
        steps = state["recipe"]["steps"]
    else:
        trial = ClipTrainer(config, ClipRecipe(steps=1_000_000, seed=args.seed), pairs, pool, tokenizer)
        steps = steps_in(args.minutes, trial)
    trainer = ClipTrainer(config, ClipRecipe(steps=steps, seed=args.seed), pairs, pool, tokenizer)
    if state:
        trainer.load_state_dict(state)
        del state
    size = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(f"{len(pairs.things)} glyphs, {size:,} parameters, step {trainer.step} of {steps}", flush=True)
    train(trainer, args.output, args.checkpoint_minutes)
    save_clip(trainer, args.output / "model")


if __name__ == "__main__":
    main()
