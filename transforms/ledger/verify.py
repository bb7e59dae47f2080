"""Checks that an output folder holds what its marks say, and no more: counts, sizes, checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from transforms import storage
from transforms.errors import OutputDamaged, amount
from transforms.ledger.file_lists import listed_objects
from transforms.ledger.folder import ERRORS, FILE_FOLDERS, FILE_LISTS, FILES_BELOW, OutputFolder
from transforms.ledger.marks import Mark, read_mark
from transforms.ledger.objects import end_problem, size_problem
from transforms.ledger.plan import Plan
from transforms.ledger.remove import shard_of
from transforms.ledger.totals import pending_shards, requested_shards
from transforms.ledger.types import StoredObject, shard_name

READERS = 8
READ_WHOLE = 4 << 20  # bytes of an object
NUMBERS = ("rows_read", "rows_written", "rows_rejected", "rows_filtered")


def problems(output: str, plan: Plan, folders: Iterable[str], progress: Callable[[int], object]) -> Iterator[str]:
    """Yield a line for each thing that is wrong; `progress` is called with the number of shards checked so far.

    `folders` are those of main objects, of any layout. Every object is read in full. Shards that are not done are
    problems, too.
    """
    return (line for _, line in found_problems(output, plan, folders, progress))


def found_problems(
    output: str, plan: Plan, folders: Iterable[str], progress: Callable[[int], object]
) -> Iterator[tuple[int | None, str]]:
    """As `problems`, each with the number of the shard that is damaged; None if none is."""
    again = requested_shards(output)
    pending = set(pending_shards(output, plan.shards)) - again
    for index in sorted(pending):
        yield None, f"shard {shard_name(index)} is not done"
    for index in sorted(again):
        yield None, f"shard {shard_name(index)} is to be done again"
    done = [index for index in range(plan.shards) if index not in pending]
    known: set[str] = set()
    views = max(1, plan.views)
    with ThreadPoolExecutor(READERS) as pool:
        for number, (index, (paths, found)) in enumerate(
            zip(done, pool.map(partial(_check_shard, output, views=views), done), strict=True), 1
        ):
            known |= paths
            yield from ((index, line) for line in found)
            progress(number)
    for folder in (*folders, ERRORS, FILE_LISTS):
        for path in _strangers(output, folder, known):
            shard = shard_of(path)
            yield shard if shard in pending else None, f"{path} is in no mark"


def _check_shard(output: str, index: int, views: int = 1) -> tuple[set[str], list[str]]:
    """The paths that a mark lists, except files of images and codes, and the problems of the shard."""
    folder = OutputFolder(output)
    try:
        mark = read_mark(folder.stats(shard_name(index)))
    except FileNotFoundError:
        return set(), [f"shard {shard_name(index)} was taken back meanwhile"]
    except OutputDamaged as error:
        return set(), [str(error)]
    found: list[str] = []
    counts = mark.counts
    ended = counts.rows_written + counts.rows_rejected + counts.rows_filtered
    uneven = [name for name in NUMBERS if getattr(counts, name) % views]
    if uneven:
        rows = f"{getattr(counts, uneven[0]):,} {uneven[0].replace('_', ' ')}"
        found.append(f"shard {shard_name(index)}: {rows}, no multiple of the {views:,} views of an image")
    if counts.rows_read != ended:
        found.append(f"shard {shard_name(index)}: {amount(counts.rows_read, 'rows')} read, {ended:,} accounted for")
    try:
        objects = listed_objects(output, mark)
    except OutputDamaged as error:
        objects = mark.objects
        found.append(str(error))
    found += filter(None, (_check_object(output, item, mark) for item in objects))
    paths = {item.path for item in objects}
    for files in (folder.relative(folder.files(name, shard_name(index))) for name in FILE_FOLDERS):
        if any(path.startswith(f"{files}/") for path in paths):
            found += [f"{path} is in no mark" for path in _strangers(output, files, paths)]
    return {path for path in paths if not path.startswith(FILES_BELOW)}, found


def _check_object(output: str, item: StoredObject, mark: Mark) -> str | None:
    uri = storage.join(output, item.path)
    if item.size <= READ_WHOLE:  # one request, and there may be millions of images
        try:
            data = storage.read_bytes(uri, item.size + 1)
        except FileNotFoundError:
            data = b""
        problem = None if len(data) == item.size else size_problem(output, item)
        found = hashlib.sha256(data).hexdigest()
    else:
        problem = size_problem(output, item)
        found = "" if problem else storage.sha256(uri)
    if problem:
        return problem
    if found != item.sha256:
        return f"{item.path} has another checksum than its mark says"
    return end_problem(output, item, mark) if item in mark.objects and item.path.endswith(".parquet") else None


def _strangers(output: str, folder: str, known: set[str]) -> list[str]:
    """Files among ours that no mark lists: readers of the folder would take them for rows."""
    paths = [OutputFolder(output).relative(info.uri) for info in storage.list_files(storage.join(output, folder))]
    return [path for path in paths if path not in known and "/." not in path]
