"""From prompts to the token ids of a CLIP, with the tokenizer files that lie beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from models.errors import CheckpointError
from models.weights.tokenizer_files import read_tokenizer, tokenizer_files

LEGACY_EOS = 2  # of configurations older than transformers 4.30, where it is not the tokenizer's: see `open_clip_texts`


class ClipTexts:
    """A tokenizer at one length. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.length = length
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)  # the marks stay: it is the text between them that is cut
        self.eos = int(self._tokenizer.encode("").ids[-1])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [N, length]: the raw texts between the tokenizer's marks, padded with the last mark.

        The padding stands behind the place that is pooled, where causal attention does not look. What cannot be written
        in UTF-8 is replaced.
        """
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        ids = np.full((len(texts), self.length), self.eos, dtype=np.int64)
        for row, encoded in zip(ids, self._tokenizer.encode_batch(texts), strict=True):
            row[: len(encoded.ids)] = encoded.ids
        return ids


def open_clip_texts(folder: Path, *, length: int, vocabulary: int, eos_token_id: int) -> ClipTexts:
    """The tokenizer of a folder, for a model of `length` positions and `vocabulary` pieces that pools at an EOS.

    An `eos_token_id` of 2 is that of old configurations, which do not say the tokenizer's own; transformers then pools
    at the highest id. Raises `CheckpointError` where files are missing or belong to another model.
    """
    tokenizer = read_tokenizer(folder, tokenizer_files(folder), _from_parts)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest}, the model a vocabulary of {vocabulary}; "
            "copy the tokenizer that the model was trained with"
        )
    ends = tokenizer.encode("").ids[-1:]
    expected = largest if eos_token_id == LEGACY_EOS else eos_token_id
    if ends != [expected]:
        raise CheckpointError(
            f"{folder}: the tokenizer ends a text with {ends[0] if ends else 'no mark'}, the model reads it at token "
            f"{expected} (eos_token_id {eos_token_id}); copy the tokenizer that the model was trained with"
        )
    return ClipTexts(tokenizer, length)


def _from_parts(vocabulary: Path, _: Path) -> Tokenizer:
    """OpenAI's CLIP tokenizer, as transformers builds it of a vocabulary and the merges beside it."""
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast.from_pretrained(vocabulary.parent, local_files_only=True).backend_tokenizer
