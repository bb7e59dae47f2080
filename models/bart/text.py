"""From prompts to the ids that DALL·E BART's encoder reads: normalised, cut to pieces, padded to one length.

The text tokenizer lies beside the weights. For models that were trained on normalised captions,
`models/bart/normalizer.py` runs before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from models.bart.config import DalleBartConfig
from models.bart.normalizer import TextNormalizer, read_word_costs
from models.errors import CheckpointError
from models.weights.tokenizer_files import WORD_LIST_NAME, read_tokenizer, tokenizer_files

BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # BART's; the first four have the ids above


@dataclass(frozen=True)
class EncodedText:
    """Prompts as the network reads them, a row each; L is the model's `max_text_length`.

    `input_ids` and `attention_mask` are int32 [N, L]: `<s>`, the pieces, `</s>`, then padding, with 1 in the mask where
    there is no padding. `truncated` bool [N] marks prompts whose end was cut off; `empty` bool [N] those without
    anything to draw, because they are blank or the normaliser removes everything.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    truncated: np.ndarray
    empty: np.ndarray


@dataclass(frozen=True)
class TextEncoder:
    """A text tokenizer, and the normaliser of models that need one. Can be pickled, and shared by threads."""

    tokenizer: Tokenizer
    normalizer: TextNormalizer | None
    length: int
    vocabulary: int

    def encode(self, prompts: Sequence[str], keys: Sequence[str]) -> EncodedText:
        """The input of each prompt; the `keys` of their rows decide whom `<person>` becomes.

        Raises `ValueError` unless there are as many keys as prompts. No prompt raises: characters that UTF-8 cannot
        hold are replaced.
        """
        input_ids = np.full((len(prompts), self.length), PAD, np.int32)
        mask = np.zeros((len(prompts), self.length), np.int32)
        truncated, empty = np.zeros(len(prompts), bool), np.zeros(len(prompts), bool)
        for row, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
            text = self.normalizer(prompt, key) if self.normalizer else _without_surrogates(prompt)
            pieces = self.tokenizer.encode(text, add_special_tokens=False).ids
            kept = pieces[: self.length - 2]
            input_ids[row, : len(kept) + 2] = [BEGIN, *kept, END]
            mask[row, : len(kept) + 2] = 1
            truncated[row] = len(kept) < len(pieces)
            empty[row] = not (pieces and _is_visible(prompt) and _is_visible(text))
        # Published vocabularies may have a special piece more than the table of the model: text can spell it.
        input_ids[input_ids >= self.vocabulary] = UNKNOWN
        return EncodedText(input_ids, mask, truncated, empty)


def open_text_encoder(folder: Path, config: DalleBartConfig, files: Mapping[str, Path] | None = None) -> TextEncoder:
    """Open the text tokenizer in a checkpoint's folder, and its word list if the model needs normalised text.

    `files` gives the paths of files by their usual names (`BartCheckpoint.tokenizer`). Raises `CheckpointError` for a
    tokenizer that is missing or broken, or that does not belong to the model.
    """
    files = tokenizer_files(folder) if files is None else files
    tokenizer = read_tokenizer(folder, files, _from_parts)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _check(tokenizer, folder, config)
    ids = tokenizer.get_vocab()
    special = [name for name in SPECIAL if name in ids and ids[name] < config.encoder_vocab_size]
    tokenizer.add_special_tokens([AddedToken(name, lstrip=name == "<mask>") for name in special])
    normalizer = None
    if config.normalize_text:
        words = files.get(WORD_LIST_NAME)
        normalizer = TextNormalizer(read_word_costs(words) if words else None)
    return TextEncoder(tokenizer, normalizer, config.max_text_length, config.encoder_vocab_size)


def _from_parts(vocabulary: Path, merges: Path) -> Tokenizer:
    """BART's byte-level BPE."""
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _check(tokenizer: Tokenizer, folder: Path, config: DalleBartConfig) -> None:
    """Raise `CheckpointError` for a tokenizer with ids that the model would misread or cannot read."""
    found = [tokenizer.token_to_id(name) for name in SPECIAL[:3]]
    if found != [BEGIN, PAD, END]:
        raise CheckpointError(
            f"{folder}: the tokenizer gives {', '.join(SPECIAL[:3])} the ids {found}, where DALL·E BART has "
            f"{[BEGIN, PAD, END]}: it belongs to another model"
        )
    largest = max(number for piece, number in tokenizer.get_vocab().items() if piece not in SPECIAL[3:])
    if largest >= config.encoder_vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest}, but the model a vocabulary of only "
            f"{config.encoder_vocab_size} (encoder_vocab_size): it belongs to another model"
        )
    if config.max_text_length < 2:
        raise CheckpointError(f"{folder}: max_text_length {config.max_text_length} leaves no room for <s> and </s>")


def _is_visible(text: str) -> bool:
    """Whether a text has anything but white space and control characters."""
    return any(character.isprintable() and character != " " for character in text)


def _without_surrogates(text: str) -> str:
    """The text with neighbouring halves of surrogate pairs joined, and single ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
