"""The text tokenizer beside the weights of a DALL·E BART or of a CLIP: its files, and how to open them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from models.errors import CheckpointError

WORD_LIST_NAME = "enwiki-words-frequency.txt"  # beside the published weights of dalle-mini: how to split hashtags
WHOLE, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
NAMES = (WHOLE, "tokenizer_config.json", "special_tokens_map.json", VOCABULARY, MERGES, WORD_LIST_NAME)


def tokenizer_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """The files of a text tokenizer by their usual names; with `suffix`, those that have it: `vocab_mini.json`."""
    paths = {name: folder / f"{Path(name).stem}{suffix}{Path(name).suffix}" for name in NAMES}
    return {name: path for name, path in paths.items() if path.is_file()}


def is_whole(files: Mapping[str, Path]) -> bool:
    """Whether the `tokenizer_files` are enough for `read_tokenizer`."""
    return WHOLE in files or {VOCABULARY, MERGES} <= files.keys()


def read_tokenizer(folder: Path, files: Mapping[str, Path], from_parts: Callable[[Path, Path], Tokenizer]) -> Tokenizer:
    """`tokenizer.json` if it is among the `tokenizer_files`, else `from_parts` of `vocab.json` and `merges.txt`.

    Raises `CheckpointError` for a tokenizer that is missing or broken.
    """
    whole, vocabulary, merges = (files.get(name) for name in (WHOLE, VOCABULARY, MERGES))
    try:
        if whole:
            return Tokenizer.from_file(str(whole))
        if vocabulary and merges:
            return from_parts(vocabulary, merges)
    except Exception as error:  # tokenizers raises plain Exception
        broken = whole or f"{vocabulary} or {merges}"
        raise CheckpointError(f"{broken}: not a tokenizer, or cut short ({error}); copy it again") from error
    missing = f", but no {MERGES}" if vocabulary else f", but no {VOCABULARY}" if merges else ""
    raise CheckpointError(
        f"{folder}: no tokenizer here{missing}. Expected {WHOLE}, or {VOCABULARY} with {MERGES}: "
        "copy them from where the weights come from"
    )
