"""What the launcher of a job does with its marks, in a process of its own: requests, CPU seconds and peak memory.

`python scale_alone.py FOLDER SHARDS DONE` prints them as JSON. It answers for a bucket in which the first `DONE` shards
have their marks; the others get theirs while the job "runs". Listings and bodies are made up, as Google's JSON API has
them; all else is the code that it finds first on the path, of this version or of another one. Without `DONE`, it reads
the shards of a stored plan instead, of a tar each.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import md5
from pathlib import Path
from typing import Any

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it would look for the kind of the bucket
import gcsfs
import numpy as np

from transforms.ledger import types
from transforms.ledger.totals import pending_shards, settle

shard_name = getattr(types, "shard_name", "{:05d}".format)  # of earlier versions

PAGE = 1000  # objects in an answer
ROWS = 10_000
OUTPUT = "gs://bucket/out"
STATS, DATA = "out/_vqbeam/stats/", "out/data/"
CODES = "ff" * 2048  # 16,384 codes, all in use


def counts() -> dict[str, Any]:
    """The counts of a shard, each the same."""
    numbers = {"rows_read": ROWS, "rows_written": ROWS, "rows_rejected": 0, "rows_filtered": 0, "missing_captions": 0}
    return {**numbers, "errors": {}, "filters": {}, "notices": {}, "errors_file": "", "codes_used": CODES}


def table(shard: int) -> dict[str, Any]:
    """The main object of a shard."""
    return {"path": f"data/{shard_name(shard)}.parquet", "size": 5_000_000 + shard, "sha256": f"{shard:064x}"}


def body(shard: int) -> bytes:
    """The mark of a shard."""
    values = {"shard": shard, **counts(), "seconds": 240.0, "timings": {"read": 1.0, "model": 200.0}}
    return json.dumps({**values, "objects": [table(shard)], "vqbeam_version": "1"}, indent=1, sort_keys=True).encode()


def report(shard: int) -> dict[str, Any]:
    """What a worker reports of a shard, as it crosses the shuffle."""
    how = {"status": "done", "seconds": 240.0, "timings": {"read": 1.0, "model": 200.0}, "reason": "", "advised": False}
    how |= {"worker": f"host-{shard % 256}", "began": 0.0, "ended": 240.0}
    made = {"mark": md5(body(shard)).hexdigest(), "objects": [table(shard)], "bytes": table(shard)["size"]}
    return {"shard": shard, "counts": counts(), **how, "notices": {}, "sources": [], **made}


class Bucket:
    """`marked` shards have a mark and a table; other objects are files in `folder`. Counts requests."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder = folder
        self.shards = shards
        self.marked = 0
        self.requests = 0
        self.order = np.argsort(np.array([*map(shard_name, range(shards))]), kind="stable").astype(np.int32)
        self.md5 = np.load(folder / "md5.npy")

    def page(self, prefix: str = "", pageToken: str | None = None, **asked: Any) -> dict[str, Any]:
        """Objects below a prefix, as a listing has them."""
        if prefix not in (STATS, DATA):
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            names = [str(path.relative_to(self.folder)) for path in files]
            items = [{"name": name, "size": "1", "generation": "1"} for name in names if name.startswith(prefix)]
            return {"kind": "storage#objects", "items": items}
        order = self._there(self.marked)
        start = int(pageToken or 0)
        items = [self._item(prefix, int(shard)) for shard in order[start : start + PAGE]]
        more = {"nextPageToken": str(start + PAGE)} if start + PAGE < len(order) else {}
        return {"kind": "storage#objects", "items": items, **more}

    @cache  # noqa: B019 - there is one bucket
    def _there(self, marked: int) -> np.ndarray:
        return self.order[self.order < marked]

    def _item(self, prefix: str, shard: int) -> dict[str, Any]:
        mark = prefix == STATS
        size = 2500 if mark else table(shard)["size"]
        name = f"{prefix}{shard_name(shard)}.{'json' if mark else 'parquet'}"
        digest = base64.b64encode(self.md5[shard].tobytes()).decode()
        return {"name": name, "size": str(size), "generation": "1732924800000000", "md5Hash": digest, "etag": "CAE="}

    def read(self, key: str) -> bytes:
        """The content of an object."""
        shard = re.fullmatch(rf"{STATS}(\d+)\.json", key)
        if shard and int(shard[1]) < self.marked:
            return body(int(shard[1]))
        return (self.folder / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).write_bytes(data)


def answer_for(bucket: Bucket) -> None:
    """Have gcsfs ask `bucket`."""

    async def call(self: Any, method: str, path: str, *args: Any, **asked: Any) -> Any:
        bucket.requests += 1
        if method == "GET" and path == "b/{}/o":
            return bucket.page(**{name: value for name, value in asked.items() if value is not None})
        raise FileNotFoundError(args)

    async def read(self: Any, path: str, start: Any = None, end: Any = None, **asked: Any) -> bytes:
        bucket.requests += 1
        return bucket.read(path.partition("/")[2])[start:end]

    async def write(self: Any, path: str, data: bytes, **asked: Any) -> None:
        bucket.requests += 1
        bucket.write(path.partition("/")[2], data)

    async def remove(self: Any, path: str, **asked: Any) -> None:
        bucket.requests += 1
        (bucket.folder / path.partition("/")[2]).unlink(missing_ok=True)

    fs = gcsfs.GCSFileSystem
    fs._call, fs._cat_file, fs._pipe_file, fs._rm_file = call, read, write, remove
    fs.call = gcsfs.core.asyn.sync_wrapper(call)


def work(shards: range) -> None:
    """The end of a run of `shards`, as the workers see it."""
    from transforms.engine import beam

    if hasattr(beam, "digest_block"):
        for start in range(shards.start // 1000 * 1000, shards.stop, 1000):
            block = range(max(start, shards.start), min(start + 1000, shards.stop))
            if block:
                beam.digest_block((start // 1000, map(report, block)), OUTPUT)


def prepare(folder: str, shards: int, done: int) -> int:
    """One run does the first `done` shards, another one the rest; returns the requests of its workers for digests."""
    hashes = np.array([np.frombuffer(md5(body(shard)).digest(), np.uint8) for shard in range(shards)])
    np.save(Path(folder) / "md5.npy", hashes)
    bucket = Bucket(Path(folder), shards)
    answer_for(bucket)
    work(range(done))
    bucket.requests = 0
    work(range(done, shards))
    return bucket.requests


def measure(folder: str, shards: int, done: int) -> dict[str, float]:
    """A resume and its summary, without the work of the shards."""
    bucket = Bucket(Path(folder), shards)
    bucket.marked = done
    answer_for(bucket)
    start = time.process_time()
    pending = pending_shards(OUTPUT, shards)
    before_work = time.process_time() - start
    if pending != list(range(done, shards)):
        raise RuntimeError(f"{len(pending)} shards are pending, of which {shards - done} are")
    bucket.marked = shards  # the run
    start = time.process_time()
    settle(OUTPUT, shards, 1.0)  # by the last step of the pipeline
    outcome = settle(OUTPUT, shards, 1.0, look=True)  # by the launcher
    seconds = before_work + time.process_time() - start
    if outcome.undone or outcome.totals.rows_written != ROWS * shards or outcome.totals.damaged:
        raise RuntimeError(f"{outcome.totals.rows_written} rows of {ROWS * shards}")
    return {"requests": bucket.requests, "seconds": seconds, "mib": peak_mib()}


def peak_mib() -> float:
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(peak[1]) / 1024 if peak else float("nan")


def store_plan(folder: str, shards: int) -> None:
    """A plan in which each shard is a tar."""
    from transforms.ledger import plan

    def shard(index: int) -> types.Shard:
        uri, version = f"gs://bucket/pairs/{index:07d}.tar", str(1732924800000000 + 7919 * index)
        return types.Shard(index, (types.Slice(types.Source(uri, "webdataset", 500_000_000 + index, version)),))

    plan.store_segment(folder, plan.Plan("encode", {}, {}, {}), [*map(shard, range(shards))])


def read_plan(folder: str, shards: int) -> dict[str, float]:
    """All shards of a stored plan, as the versions give them: the MiB that are needed beside what is imported."""
    from transforms.ledger import plan

    if hasattr(plan, "load_shards"):
        load = plan.load_shards
    else:
        from transforms.ledger.stored_shards import StoredShards as load
    stored, imported = plan.load_plan(folder), peak_mib()
    start = time.process_time()
    found = sum(1 for _ in load(folder, stored))
    if found != shards:
        raise RuntimeError(f"{found} shards of {shards}")
    size = os.path.getsize(Path(folder) / "_vqbeam" / "shards.parquet")
    return {"bytes": size / shards, "seconds": time.process_time() - start, "mib": peak_mib() - imported}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        with ProcessPoolExecutor(1) as other:
            other.submit(store_plan, sys.argv[1], int(sys.argv[2])).result()
        print(json.dumps(read_plan(sys.argv[1], int(sys.argv[2]))))
        sys.exit()
    case = (sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    with ProcessPoolExecutor(1) as other:  # so that what it holds does not count
        of_workers = other.submit(prepare, *case).result()
    print(json.dumps({**measure(*case), "of_workers": of_workers}))
