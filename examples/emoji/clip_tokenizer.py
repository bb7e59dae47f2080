"""The byte-level BPE of the embedded CLIP, learnt from the captions it is trained on, and the files that hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2  # an `eos_token_id` of 2 would make transformers pool at the highest id instead


def learn_clip_tokenizer(captions: Iterable[str], pieces: int) -> Tokenizer:
    """A tokenizer of at most `pieces` pieces that lowers case and sets the marks around a caption, as CLIP's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(name, special=True) for name in (BOS, EOS, PAD)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)]
    )
    return tokenizer


def save_clip_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """`tokenizer.json`, and the `tokenizer_config.json` with which transformers reads it."""
    tokenizer.no_truncation()
    tokenizer.no_padding()  # `token_ids` sets both, and they are no part of the vocabulary
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_prefix_space": True,  # as in tokenizer.json; transformers 4 would take it for False
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def token_ids(tokenizer: Tokenizer, captions: list[str], max_length: int) -> np.ndarray:
    """Captions -> int64 [N, L], padded to the longest of them and cut to `max_length` with the last mark kept."""
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=PAD_ID, pad_token=PAD)
    return np.array([encoded.ids for encoded in tokenizer.encode_batch(captions)], dtype=np.int64)
