"""A model folder with random weights to measure `vqbeam generate` with: DALL·E BART, VQGAN and CLIP of given sizes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from examples.emoji.caption_tokenizer import learn_tokenizer, save_tokenizer
from examples.emoji.clip_tokenizer import BOS_ID, EOS_ID, PAD_ID, learn_clip_tokenizer, save_clip_tokenizer
from models.bart.checkpoint import save_bart
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from models.weights.tokenizer_files import tokenizer_files

COLOURS = ("red", "yellow", "green", "blue", "violet", "white")
THINGS = ("apple", "rocket", "tree", "clock", "boat", "cat", "violin", "umbrella")
CLIP_LENGTH = 16  # pieces of a prompt


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
    """Writes a text file, a prompt a line."""
    path.write_text("".join(f"{prompt}\n" for prompt in prompts(count)), encoding="utf-8")
    return path


def write_generator(folder: Path, sizes: Sizes) -> Path:
    """Writes `dalle_bart/` with a text tokenizer learnt from such prompts, `vqgan/`, and a small `clip/`."""
    torch.manual_seed(0)
    texts = prompts(1000)
    tokenizer = learn_tokenizer(texts, 500)
    save_tokenizer(tokenizer, folder / "dalle_bart")
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
    bart = folder / "dalle_bart"
    save_bart(DalleBart(config), bart, name="random", tokenizer=tokenizer_files(bart))
    save_vqgan(VQGAN(sizes.vqgan), folder / "vqgan", name="random")
    _write_clip(folder / "clip", texts, sizes.vqgan.resolution)
    return folder


def _write_clip(folder: Path, texts: list[str], side: int) -> None:
    tokenizer = learn_clip_tokenizer(texts, 500)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": CLIP_LENGTH,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
    }
    vision = {"image_size": side, "patch_size": side // 4}
    CLIPModel(
        CLIPConfig(text_config={**shape, **text}, vision_config={**shape, **vision}, projection_dim=32)
    ).save_pretrained(folder)
    save_clip_tokenizer(tokenizer, folder, CLIP_LENGTH)
    preprocessing = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
