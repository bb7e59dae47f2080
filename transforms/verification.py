"""Does an output folder hold what its marks say, and no more: counts, sizes, checksums."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.layout import Layout
from transforms.plan import Plan
from transforms.totals import pending_shards

READERS = 8


def problems(output: str, plan: Plan, progress: Callable[[int], None]) -> Iterator[str]:
    """One line for each thing that is wrong; `progress` is called with the number of shards checked so far.

    Every object is read in full. Shards that are not done are problems too.
    """
    pending = set(pending_shards(output, plan.shards))
    for index in sorted(pending):
        yield f"shard {index:05d} is not done"
    done = [index for index in range(plan.shards) if index not in pending]
    known: set[str] = set()
    with ThreadPoolExecutor(READERS) as pool:
        for number, (paths, found) in enumerate(pool.map(lambda index: _check_shard(output, index), done), 1):
            known |= paths
            yield from found
            progress(number)
    yield from _strangers(output, known)


def _check_shard(output: str, index: int) -> tuple[set[str], list[str]]:
    """The paths that a mark lists, and what is wrong with them."""
    layout = Layout(output)
    mark = json.loads(storage.read_bytes(layout.stats(f"{index:05d}")))
    found: list[str] = []
    ended = mark["rows_written"] + mark["rows_rejected"] + mark["rows_filtered"]
    if mark["rows_read"] != ended:
        found.append(f"shard {index:05d}: {mark['rows_read']} rows read, {ended} accounted for")
    for item in mark["objects"]:
        uri = storage.join(output, item["path"])
        try:
            size = storage.stat(uri).size
        except FileNotFoundError:
            found.append(f"{item['path']} is missing")
            continue
        if size != item["size"]:
            found.append(f"{item['path']} has {size} bytes, its mark says {item['size']}")
        elif storage.sha256(uri) != item["sha256"]:
            found.append(f"{item['path']} has another checksum than its mark says")
        elif item["path"].endswith(".parquet"):
            expected = mark["rows_written"] if item["path"].startswith("data/") else mark["rows_rejected"]
            found += _check_rows(uri, item["path"], expected)
    return {item["path"] for item in mark["objects"]}, found


def _check_rows(uri: str, path: str, expected: int) -> list[str]:
    try:
        with storage.open_read(uri) as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    except pa.ArrowInvalid as error:
        return [f"{path} is no readable Parquet file: {error}"]
    return [] if rows == expected else [f"{path} has {rows} rows, its mark says {expected}"]


def _strangers(output: str, known: set[str]) -> Iterator[str]:
    """Files among ours that no mark lists: readers of the folder would take them for rows."""
    layout = Layout(output)
    for folder in ("data", "images", "tars"):
        for info in storage.list_files(storage.join(output, folder)):
            path = layout.relative(info.uri)
            if path not in known and not path.rsplit("/", 1)[-1].startswith("."):
                yield f"{path} is in no mark"
