"""Removes what jobs wrote into an output folder, told by its names there, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor

from transforms import storage
from transforms.ledger.folder import (
    ATTEMPTS,
    CODES,
    DIGESTS,
    ERRORS,
    FILE_FOLDERS,
    FILE_LISTS,
    IMAGES,
    PLAN,
    REDONE,
    RETRY,
    STATS,
    OutputFolder,
)
from transforms.ledger.types import SHARD, shard_name, shard_number
from transforms.storage import PARTIAL_PREFIX

DELETERS = 16
SEGMENT = re.compile(r"shards(?:-\d{3,})?\.parquet")
OURS = re.compile(
    rf"(?:[^/]+/(?P<main>{SHARD})\.(?:parquet|tar|mds)|{IMAGES}/(?P<images>{SHARD})/\d{{7,}}[a-z0-9_-]*_\d+\.(?:png|webp|jpg)"
    rf"|{CODES}/(?P<codes>{SHARD})(?:/\d+\.npy|/codes\.bin|\.jsonl)"
    rf"|{ERRORS}/(?P<errors>{SHARD})\.[0-9a-f]{{16}}\.parquet"
    rf"|{FILE_LISTS}/(?P<list>{SHARD})\.[0-9a-f]{{16}}\.jsonl|{STATS}/(?P<mark>{SHARD})\.json)"
)


def shard_of(path: str) -> int | None:
    """The shard that an object of a job, with its path in the output folder, belongs to; None if it is not a job's."""
    found = OURS.fullmatch(path)
    return shard_number(next(name for name in found.groups() if name)) if found else None


def remove_shards(output: str, folders: Iterable[str], shards: int | None) -> list[str]:
    """Delete the objects of the first `shards` shards: marks first, then what is in `folders`, then the rejected rows.

    None stands for all shards. Returns the paths of files there that no job wrote; they stay.
    """
    kept: list[str] = []
    for folder in (STATS, *folders, ERRORS, FILE_LISTS):
        kept += _remove(output, storage.join(output, folder), None if shards is None else range(shards))
    for folder in (DIGESTS, RETRY, REDONE, ATTEMPTS):
        storage.delete_folder(storage.join(output, folder))
    return kept


def remove_leftovers(output: str, folders: Iterable[str]) -> None:
    """Delete the partial files that killed runs left beside the plan, the marks and what is in `folders`."""
    for folder in ("", "_vqbeam", STATS, ERRORS, FILE_LISTS, DIGESTS, RETRY, ATTEMPTS, *folders):
        storage.delete_leftovers(storage.join(output, folder))


def remove_shard(output: str, folders: Iterable[str], shard: int) -> None:
    """Delete the objects of one shard, the mark first, so that it is done again."""
    here = OutputFolder(output)
    storage.delete(here.stats(shard_name(shard)))
    for folder in folders:
        if folder in FILE_FOLDERS:
            _remove(output, here.files(folder, shard_name(shard)), {shard})
        _remove(output, storage.join(output, folder, f"{shard_name(shard)}.*"), {shard})
    for prefix in (here.errors_prefix(shard_name(shard)), here.file_lists_prefix(shard_name(shard))):
        _remove(output, f"{prefix}*", {shard})


def remove_plan(output: str) -> None:
    """Delete the plan: the copy for people, then its segments, the first of them last."""
    storage.delete(storage.join(output, PLAN))
    home = storage.join(output, "_vqbeam")
    names = {info.uri.rpartition("/")[2] for info in storage.list_files(storage.join(home, "*"))}
    for name in sorted(filter(SEGMENT.fullmatch, names)):  # "-" sorts before "."
        storage.delete(storage.join(home, name))
    storage.delete_partials(storage.join(home, ""))


def _remove(output: str, pattern: str, shards: Container[int] | None) -> list[str]:
    kept: list[str] = []
    found = [OutputFolder(output).relative(info.uri) for info in storage.list_files(pattern)]
    doomed: list[str] = []
    for path in found:
        hidden = path.rpartition("/")[2].startswith(PARTIAL_PREFIX)
        shard = shard_of(path)
        ours = shard is not None and (shards is None or shard in shards)
        (doomed if hidden or ours else kept).append(path)
    with ThreadPoolExecutor(DELETERS) as pool:
        list(pool.map(lambda path: storage.delete(storage.join(output, path)), doomed))
    for folder in sorted({path.rpartition("/")[0] for path in doomed}, key=len, reverse=True):
        storage.delete_empty_folders(storage.join(output, folder), output)
    return kept
