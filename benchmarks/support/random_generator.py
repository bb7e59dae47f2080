"""A DALL·E BART and its VQGAN of given sizes with random weights, and prompts and codes for them to measure with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from examples.emoji.caption_tokenizer import learn_tokenizer, save_tokenizer
from models.bart.checkpoint import save_bart
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
from models.bart.options import SAMPLING, Drawing
from models.bart.request import TokenRequest
from models.bart.text import TextEncoder
from models.uniforms import uniforms
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from models.weights.tokenizer_files import tokenizer_files
from transforms.batch import fixed_lists

COLOURS = ("red", "yellow", "green", "blue", "violet", "white")
THINGS = ("apple", "rocket", "tree", "clock", "boat", "cat", "violin", "umbrella")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a BART that draws `vqgan`'s codes. `width`, `ffn` and `heads` are those of encoder and decoder."""

    vqgan: VQGANConfig
    width: int
    ffn: int
    heads: int
    layers: int


TINY = Sizes(  # so that rows decide, not networks
    vqgan=VQGANConfig(
        ch=32,
        ch_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        resolution=32,
        z_channels=8,
        embed_dim=8,
        n_embed=64,
    ),
    width=32,
    ffn=48,
    heads=2,
    layers=1,
)


def prompts(count: int) -> list[str]:
    """`count` different prompts of some words."""
    names = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
    return [f"{names[i % len(names)]} on a {COLOURS[i // len(names) % len(COLOURS)]} wall, {i}" for i in range(count)]


def write_prompts(path: Path, count: int) -> Path:
    """Writes a text file with a prompt in each line."""
    path.write_text("".join(f"{prompt}\n" for prompt in prompts(count)), encoding="utf-8")
    return path


def token_request(text: TextEncoder, texts: list[str], keys: list[str], drawing: Drawing, length: int) -> TokenRequest:
    """One image of `length` codes for each prompt, all with the options of `drawing`; seed 0."""
    encoded = text.encode(texts, keys)
    numbers = np.stack([uniforms(0, key, 0, length) for key in keys])[:, None]
    options = {name: np.full(len(texts), drawing[name]) for name in SAMPLING}
    return TokenRequest(encoded.input_ids, encoded.attention_mask, numbers, options)


def write_tokens(path: Path, count: int, sizes: Sizes) -> Path:
    """Writes a Parquet file of random codes for `sizes.vqgan`, as `vqbeam decode` reads it."""
    length = sizes.vqgan.spec(name="").codes_per_image
    codes = np.random.default_rng(0).integers(0, sizes.vqgan.n_embed, (count, length))
    pq.write_table(pa.table({"key": prompts(count), "encoding": fixed_lists(codes)}), path)
    return path


def write_generator(folder: Path, sizes: Sizes) -> Path:
    """Writes `dalle_bart/` with a text tokenizer learnt from such prompts, and `vqgan/`."""
    torch.manual_seed(0)
    bart = folder / "dalle_bart"
    tokenizer = learn_tokenizer(prompts(1000), 500)
    save_tokenizer(tokenizer, bart)
    config = DalleBartConfig(
        encoder_vocab_size=tokenizer.get_vocab_size(),
        image_vocab_size=sizes.vqgan.n_embed,
        image_length=sizes.vqgan.spec(name="").codes_per_image,
        max_text_length=64,
        d_model=sizes.width,
        encoder_layers=sizes.layers,
        encoder_ffn_dim=sizes.ffn,
        encoder_attention_heads=sizes.heads,
        decoder_layers=sizes.layers,
        decoder_ffn_dim=sizes.ffn,
        decoder_attention_heads=sizes.heads,
        decoder_start_token_id=sizes.vqgan.n_embed,
        normalize_text=True,
    )
    save_bart(DalleBart(config), bart, name="random", tokenizer=tokenizer_files(bart))
    save_vqgan(VQGAN(sizes.vqgan), folder / "vqgan", name="random")
    return folder
