"""`index.json` of an export: what readers of some layouts ask for, written when all shards are there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from transforms import storage
from transforms.errors import UsageError
from transforms.ledger.file_lists import listed_objects
from transforms.ledger.folder import CODES, INDEX
from transforms.ledger.marks import Mark, read_mark
from transforms.ledger.totals import mark_uris
from transforms.outputs.layout import Index

READERS = 32  # marks read at once
WRITER = {"written_by": "vqbeam"}  # beside what readers look for: a file without it is the user's


def check_index(output: str) -> None:
    """Raise `UsageError` if a file of the user's is where the index goes."""
    uri = storage.join(output, INDEX)
    if storage.exists(uri) and not _is_ours(uri):
        raise UsageError(f"{uri} was not written by vqbeam, and is in the way: move it, or choose another output")


def write_index(output: str, index: Index, codes_per_image: int, codebook_size: int) -> None:
    """Write the index of a finished export. Raises `UsageError` as `check_index`."""
    check_index(output)
    uri = storage.join(output, INDEX)
    with ThreadPoolExecutor(READERS) as pool:
        shards = list(pool.map(lambda uri: _codes_of(output, read_mark(uri)), mark_uris(output)))
    found = {**index(shards, codes_per_image, codebook_size), **WRITER}
    storage.put_bytes(f"{json.dumps(found, indent=1, sort_keys=True)}\n".encode(), uri)


def remove_index(output: str) -> None:
    """Delete the index of an export, if vqbeam wrote it."""
    uri = storage.join(output, INDEX)
    if storage.exists(uri) and _is_ours(uri):
        storage.delete(uri)


def _codes_of(output: str, mark: Mark) -> tuple[str, int, int]:
    held = next((item for item in listed_objects(output, mark) if item.path.startswith(f"{CODES}/")), mark.objects[0])
    return held.path, held.size, mark.counts.rows_written


def _is_ours(uri: str) -> bool:
    try:
        found = json.loads(storage.read_bytes(uri))
    except ValueError:
        return False
    return isinstance(found, dict) and found.items() >= WRITER.items()
