"""Train the embedded CLIP: `python -m examples.emoji.train_clip --data DIR --tokens DIR --output DIR --minutes N`.

`--data` is what `build_dataset` wrote, `--tokens` what `vqbeam encode` made of it. Checkpoints every few minutes into
the output folder and goes on from the last one when started again with the same folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPModel

from examples.emoji.caption_variety import all_captions
from examples.emoji.clip_pairs import Pairs, read_pairs
from examples.emoji.clip_tokenizer import BOS_ID, EOS_ID, PAD_ID, learn_clip_tokenizer, save_clip_tokenizer
from examples.emoji.clip_trainer import ClipRecipe, ClipTrainer, Pool
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.glyphs import load_glyphs
from examples.emoji.reconstructions import decode_all, kept_in
from examples.emoji.spoilt_codes import spoil
from examples.emoji.training_captions import clear_pairs
from examples.emoji.training_run import add_caption_flags, run, run_parser
from models.image_tokenizer import ImageTokenizer
from models.vqgan.checkpoint import open_checkpoint

PIECES = 2048
DECODE_BATCH = 32
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


def make_pool(pairs: Pairs, vqgan: ImageTokenizer, recipe: ClipRecipe, folder: Path) -> Pool:
    """Decode what training shows, once: the arrays stay in `folder` and are mapped from there."""
    rows = np.tile(np.flatnonzero(pairs.train), recipe.spoilt_versions)
    codes, kept = spoil(pairs, rows, np.random.default_rng(recipe.seed))
    return Pool(
        reconstructions=kept_in(folder / "reconstructions.npy", lambda: decode_all(vqgan, pairs.codes)),
        spoilt=kept_in(folder / "spoilt.npy", lambda: decode_all(vqgan, codes)),
        kept=kept,
    )


def save_clip(trainer: ClipTrainer, folder: Path) -> None:
    """The folder that transformers and `models/clip/scorer.py` read, with float16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to(torch.float16).contiguous() for name, value in trainer.model.state_dict().items()
    }
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    save_clip_tokenizer(trainer.tokenizer, folder, MAX_TEXT_LENGTH)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    values = {**trainer.config.to_diff_dict(), "architectures": ["CLIPModel"], "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = run_parser("train_clip", __doc__, watch_every=50)
    add_caption_flags(parser)
    parser.add_argument("--data", type=Path, required=True, help="the `parquet` folder that build_dataset wrote")
    parser.add_argument("--tokens", type=Path, required=True, help="the `data` folder that `vqbeam encode` wrote")
    parser.add_argument("--vqgan", type=Path, default=Path("models/emoji"), help="the VQGAN of those tokens")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    pairs = read_pairs(args.data, args.tokens)
    clear = clear_pairs(load_glyphs(args.glyphs))
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json")) if args.start else learn_from(pairs)
    config = clip_config(tokenizer)
    vqgan = open_checkpoint(args.vqgan).load(
        device="cpu", dtype=args.dtype, batch_size=DECODE_BATCH, threads=args.threads
    )
    pool = make_pool(pairs, vqgan, ClipRecipe(steps=1, seed=args.seed), args.output)

    def build(steps: int) -> ClipTrainer:
        recipe = ClipRecipe(steps=steps, seed=args.seed, dtype=args.dtype)
        recipe = replace(recipe, learning_rate=recipe.learning_rate * args.rate)
        trainer = ClipTrainer(config, recipe, pairs, pool, tokenizer, clear)
        if args.start:
            trainer.model.load_state_dict(CLIPModel.from_pretrained(args.start, dtype=torch.float32).state_dict())
        return trainer

    trainer = run(build, args)
    save_clip(trainer, args.output / "model")


if __name__ == "__main__":
    main()
