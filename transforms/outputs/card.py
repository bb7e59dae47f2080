"""The dataset card: a README.md in an output folder, by which `datasets.load_dataset` finds the rows there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from transforms import storage
from transforms.ledger.commit import MainObject
from transforms.ledger.folder import CARD

TEXT = """\
---
configs:
- config_name: default
  data_files: {rows}
---

vqbeam wrote this folder. `datasets.load_dataset` reads it by its name; for other readers the rows are `{rows}`.
In `_vqbeam/` is the account of the job, which `vqbeam status` and `vqbeam verify` read.
"""


SPLIT_TEXT = """\
---
configs:
- config_name: default
  data_files:{splits}
---

vqbeam wrote this folder. `datasets.load_dataset` reads it by its name; each split is a folder with its own account.
"""
NO_SPLIT = r"\W"  # what the name of a split in datasets must not have
SPLIT_CARD = re.compile(
    re.escape(SPLIT_TEXT.format(splits="@")).replace("@", r"(?:\n  - split: \w+\n    path: [\w-]+/\w+/\*\.\w+)+")
)
LOADED = ("parquet", "tar")  # what `load_dataset` reads


def rows_in(main: MainObject) -> str:
    """The files with the rows, as a glob below the output folder."""
    return f"{main.folder}/*.{main.suffix}"


def write_card(output: str, main: MainObject) -> bool:
    """Put the card of an output folder, if `load_dataset` reads its files; False if another README.md is there: it
    stays."""
    if main.suffix not in LOADED:
        return True
    uri, text = storage.join(output, CARD), TEXT.format(rows=rows_in(main)).encode()
    if storage.put_new(text, uri):
        return True
    return storage.read_bytes(uri) == text


def write_split_card(output: str, rows: Mapping[str, str]) -> bool:
    """As `write_card`, of a folder with an output folder for each split; `rows` has a glob for the name of each."""
    uri = storage.join(output, CARD)
    splits = "".join(f"\n  - split: {re.sub(NO_SPLIT, '_', name)}\n    path: {path}" for name, path in rows.items())
    text = SPLIT_TEXT.format(splits=splits).encode()
    return storage.put_new(text, uri) or storage.read_bytes(uri) == text


def remove_split_card(output: str) -> None:
    """Delete the card of splits, if it is one that vqbeam wrote as it is."""
    uri = storage.join(output, CARD)
    if storage.exists(uri) and SPLIT_CARD.fullmatch(storage.read_bytes(uri).decode(errors="replace")):
        storage.delete(uri)


def remove_card(output: str, mains: Iterable[MainObject]) -> None:
    """Delete the card of an output folder, if it is one that vqbeam wrote as it is."""
    uri = storage.join(output, CARD)
    try:
        found = storage.read_bytes(uri)
    except FileNotFoundError:
        return
    if found in [TEXT.format(rows=rows_in(main)).encode() for main in mains]:
        storage.delete(uri)
