"""A CLIP of a few thousand random parameters with a word tokenizer, as transformers writes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel

from models.clip.checkpoint import open_clip_checkpoint
from models.clip.scorer import ClipScorer

SIDE, LENGTH = 16, 8
WORDS = ("a", "red", "blue", "apple", "rocket", "on", "background")
BOS, EOS = len(WORDS), len(WORDS) + 1  # EOS is the highest id, as in OpenAI's
PREPROCESSOR = {
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 3,
}


def open_clip(folder: Path, *, batch_size: int = 32, threads: int | None = None) -> ClipScorer:
    return ClipScorer(open_clip_checkpoint(folder), batch_size=batch_size, threads=threads)


def tiny_tokenizer() -> Tokenizer:
    vocabulary = {word: n for n, word in enumerate((*WORDS, "<|startoftext|>", "<|endoftext|>"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", BOS), ("<|endoftext|>", EOS)]
    )
    return tokenizer


def tiny_model(eos_token_id: int = EOS) -> CLIPModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **shape,
            "vocab_size": EOS + 1,
            "max_position_embeddings": LENGTH,
            "bos_token_id": BOS,
            "eos_token_id": eos_token_id,
            "pad_token_id": EOS,
        },
        vision_config={**shape, "image_size": SIDE, "patch_size": 8},
        projection_dim=12,
    )
    model = CLIPModel(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # initially, all texts have nearly the same vector
    return model.eval()


def write_tiny_clip(folder: Path, model: CLIPModel | None = None) -> CLIPModel:
    """Writes the whole folder; returns its model."""
    model = model or tiny_model()
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return model
