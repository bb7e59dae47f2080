"""Digests: what the marks of some of a thousand shards add up to, so that a job need not read a million marks again.

A digest counts only while each mark that it was made of is there as it was, which a listing tells: by its MD5 in a
store, by its time and size locally. A store that tells no MD5 has no digests.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.ledger.folder import DIGESTS
from transforms.ledger.marks import Mark
from transforms.ledger.sums import Totals
from transforms.ledger.types import ShardCounts, StoredObject

BLOCK = 1000  # shard numbers of a digest
FEWEST = 32  # marks that are worth a digest
TOTALS_KEY = b"vqbeam.totals"
SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("mark", pa.string()),
        ("rows_written", pa.int64()),
        ("rows_rejected", pa.int64()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("errors_path", pa.string()),
        ("errors_size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class CountedMark:
    """A mark with its identity: its `values`, the `bytes` of all its objects among them, and the main object and the
    rejected rows in `objects`."""

    identity: str
    values: Mapping[str, Any]
    objects: Sequence[StoredObject]


@dataclass(frozen=True)
class Digest:
    """`rows` are those of `SCHEMA`, a mark each; `totals` adds them up."""

    rows: pa.Table
    totals: Totals

    def marks(self) -> dict[int, str]:
        """The identity of each mark, by shard."""
        return dict(zip(self.rows["shard"].to_pylist(), self.rows["mark"].to_pylist(), strict=True))

    def looks(self) -> Iterator[Mark]:
        """Each mark with what a look at its objects needs, which are no checksums."""
        for row in self.rows.to_pylist():
            objects = [StoredObject(row["path"], row["size"], "")]
            if row["errors_path"]:
                objects.append(StoredObject(row["errors_path"], row["errors_size"], ""))
            counts = ShardCounts(rows_written=row["rows_written"], rows_rejected=row["rows_rejected"])
            yield Mark(counts, tuple(objects), {"shard": row["shard"]})


def digest_of(marks: Sequence[CountedMark], others: Sequence[Digest] = ()) -> Digest:
    """The digest of marks, and of what is in other digests."""
    totals = Totals()
    rows: list[tuple[Any, ...]] = []
    for mark in marks:
        totals.add(mark.values)
        main, errors = (*mark.objects, StoredObject("", 0, ""))[:2]
        counts = (mark.values["rows_written"], mark.values["rows_rejected"])
        rows.append((mark.values["shard"], mark.identity, *counts, main.path, main.size, errors.path, errors.size))
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    own = pa.table([pa.array(column, one.type) for column, one in zip(columns, SCHEMA, strict=True)], SCHEMA)
    for other in others:
        totals.merge(other.totals)
    totals.shards_with_rejected.sort()
    return Digest(pa.concat_tables([own, *(other.rows for other in others)]).sort_by("shard"), totals)


def store_digest(output: str, block: int, digest: Digest) -> str:
    """Put the digest of marks of a block; returns its URI, which is the same for the same content."""
    table = digest.rows.replace_schema_metadata({TOTALS_KEY: digest.totals.to_json()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue()
    uri = storage.join(output, DIGESTS, f"{block:07d}.{hashlib.sha256(data).hexdigest()[:16]}.parquet")
    storage.put_bytes(data, uri)  # in the place of a damaged one, too
    return uri


def read_digest(uri: str) -> Digest | None:
    """A digest; None if it is gone or damaged: then the marks themselves are read."""
    try:
        table = pq.read_table(io.BytesIO(storage.read_bytes(uri)))
        totals = Totals.from_json(table.schema.metadata[TOTALS_KEY].decode())
        return Digest(table.cast(SCHEMA), totals)
    except (FileNotFoundError, pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def list_digests(output: str) -> Mapping[int, list[str]]:
    """The URIs of all digests of an output folder, by block."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for info in storage.iterate_files(storage.join(output, DIGESTS)):
        number = info.uri.rpartition("/")[2].partition(".")[0]
        if number.isdigit():
            found[int(number)].append(info.uri)
    return found
