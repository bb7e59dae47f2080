"""A model folder of random weights with all that `vqbeam generate` reads, and runs of that command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.bart.checkpoint import save_bart
from models.bart.config import DalleBartConfig
from models.vqgan.checkpoint import save_vqgan
from models.weights.tokenizer_files import tokenizer_files
from tests.support.bart_checkpoints import random_bart
from tests.support.paths import GOLDEN
from tests.support.run_command import SMALL, Outcome, run
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vqgan_checkpoints import TINY, random_vqgan

TOKENIZER = GOLDEN / "text" / "tokenizer_small"
SIDE = 32  # pixels
CODES = 16  # an image
TINY_VQGAN = replace(TINY, ch_mult=(1, 1, 1, 1), attn_resolutions=(), resolution=SIDE)
TINY_GENERATOR = DalleBartConfig(
    encoder_vocab_size=300,
    image_vocab_size=TINY_VQGAN.n_embed,
    image_length=CODES,
    max_text_length=16,
    d_model=32,
    encoder_layers=1,
    encoder_ffn_dim=48,
    encoder_attention_heads=2,
    decoder_layers=1,
    decoder_ffn_dim=48,
    decoder_attention_heads=2,
    decoder_start_token_id=TINY_VQGAN.n_embed,
    normalize_text=True,
)


def write_tiny_generator(folder: Path) -> Path:
    """`dalle_bart/` with the golden tokenizer, `vqgan/` of 4x4 codes at 32 pixels, `clip/`."""
    save_bart(random_bart(TINY_GENERATOR), folder / "dalle_bart", name="tiny", tokenizer=tokenizer_files(TOKENIZER))
    save_vqgan(random_vqgan(TINY_VQGAN), folder / "vqgan", name="tiny-vqgan")
    write_tiny_clip(folder / "clip")
    return folder


def write_prompts(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(model: Path, output: str | Path, *flags: object) -> Outcome:
    """`vqbeam generate` with `SMALL` flags."""
    return run("generate", "--model", model, *SMALL, "--model_cache", f"{output}-cache", *flags, output=output)
