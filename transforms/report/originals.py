"""Finds the images again that rows were made of, by the plan of the job that wrote them.

Only the rows of the input are read among which the image must be. From tables of tokens the way goes on to the input of
the job that made these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import IMAGE, IMAGE_URI, KEY, URI
from transforms.errors import RowRejected, ShardFailed, UsageError
from transforms.inputs.again import read_again
from transforms.inputs.dead_hosts import DeadHosts
from transforms.inputs.fetch import MAX_IMAGE_BYTES, fetch_image
from transforms.inputs.request import InputSchema
from transforms.ledger.folder import OutputFolder
from transforms.ledger.marks import read_mark
from transforms.ledger.plan import Plan, load_plan
from transforms.ledger.stored_shards import ShardReader
from transforms.ledger.types import SHARD, Slice, shard_name, shard_number
from transforms.report.drawn import Budget, Place

TABLE = re.compile(rf"(.+)/data/({SHARD})\.parquet")


@dataclass(frozen=True)
class Wanted:
    """A row whose image is looked for. `per_row`: so many rows were written of each image; 0 if that is not known."""

    place: Place
    key: str
    per_row: int = 1


@dataclass(frozen=True)
class Original:
    """`uri` is where it is, for people; `plan` is that of the job that read it."""

    data: bytes
    uri: str
    plan: Plan


class Originals:
    """The images of some rows of an output folder. `missing` has a sentence for each that was not found, by its row."""

    def __init__(self, output: str, plan: Plan, budget: Budget) -> None:
        self._output, self._plan, self._budget = output, plan, budget
        self._schema = InputSchema.from_json(plan.schema)
        self._shards = ShardReader(output)
        self._dead_hosts = DeadHosts()
        self._jobs: dict[str, Originals | None] = {}
        self.missing: dict[Place, str] = {}

    def find(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Place, Original]]:
        """Those that are found, in the order of `wanted`."""
        look = self._image if self._schema.kind == "images" else self._behind_tokens
        for one in wanted:
            found: Original | str = "not looked for: the time for originals was used up"
            if not self._budget.is_spent:
                try:
                    found = look(one)
                except (ShardFailed, RowRejected, UsageError) as error:
                    found = str(error)
                except FileNotFoundError as error:
                    found = f"{error.filename or error} is gone"
            if isinstance(found, Original):
                yield one.place, found
            else:
                self.missing[one.place] = found

    def _image(self, wanted: Wanted) -> Original | str:
        rows = self._window(wanted)
        for _, row in read_again(self._shards.shard(wanted.place.shard).slices, rows, self._schema):
            if row.column(KEY)[0].as_py() == wanted.key:
                data, uri, named = (row.column(name)[0].as_py() for name in (IMAGE, URI, IMAGE_URI))
                if data is None and named:
                    data, uri = fetch_image(named, MAX_IMAGE_BYTES, dead_hosts=self._dead_hosts), named
                return Original(data, uri, self._plan) if data else f"{uri} holds no image any more"
            if self._budget.is_spent:
                break
        return "the rows of its shard's input that were looked through have none of its key"

    def _window(self, wanted: Wanted) -> range:
        """The rows of the shard's input among which it is."""
        counts = read_mark(OutputFolder(self._output).stats(shard_name(wanted.place.shard))).counts
        if not wanted.per_row:
            return range(counts.rows_read)
        first = wanted.place.position // wanted.per_row
        return range(first, first + (counts.rows_rejected + counts.rows_filtered) // wanted.per_row + 1)

    def _behind_tokens(self, wanted: Wanted) -> Original | str:
        for part in self._shards.shard(wanted.place.shard).slices:
            named = TABLE.fullmatch(part.source.uri)
            behind = self._job(named[1]) if named else None
            if not named or behind is None:
                return f"{part.source.uri} has no account of a job beside it"
            position = _position(part, self._schema.key or KEY, wanted.key)
            if position is not None:
                there = Wanted(Place(shard_number(named[2]), position), wanted.key, behind._plan.views or 1)
                found = dict(behind.find([there]))
                return found[there.place] if found else behind.missing[there.place]
        return "its shard's input has no row of this key any more"

    def _job(self, output: str) -> Originals | None:
        if output not in self._jobs:
            plan = load_plan(output)
            self._jobs[output] = None if plan is None else Originals(output, plan, self._budget)
        return self._jobs[output]


def _position(part: Slice, column: str, key: str) -> int | None:
    """The first row of a slice of a table that has the key."""
    with storage.open_read(part.source.uri) as file:
        keys = pq.read_table(file, columns=[column])[column].slice(part.start, part.stop and part.stop - part.start)
    found = keys.index(key).as_py()
    return None if found < 0 else part.start + found
