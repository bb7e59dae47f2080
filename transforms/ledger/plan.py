"""The stored plan: the shards, and everything that decides their output. Made once; a rerun runs the stored one.

The segment files are the atomic points (created, never replaced): the shards as rows, the header in the schema
metadata. `plan.json` is the same header for people, written from them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import OutputDamaged, StorageFailed, UsageError
from transforms.ledger.folder import PLAN, OutputFolder
from transforms.ledger.types import Shard, Source, known_rows

PLAN_VERSION = 1
FIVE_DIGITS = 100_000  # shards with such names; earlier versions gave the others names that do not sort
ROW_GROUP = 16384  # rows of a stored plan that are written or read at once
HEADER_KEY = b"vqbeam.plan"
SHARD_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("uri", pa.string()),
        ("format", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("root", pa.string()),
        ("rows", pa.int64()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("offset", pa.int64()),
        ("texts", pa.list_(pa.string())),
        ("checksum", pa.string()),
    ]
)


RESTORE = "restore it from a copy, choose another output folder, or overwrite to start over"
VERSIONS = ("pillow", "libavif", "ftfy", "unidecode", "emoji")  # packages that decide pixels or words, in fingerprints
SOURCE_COLUMNS = tuple(name for name in SHARD_SCHEMA.names if name in Source.__dataclass_fields__)

# What jobs did that began before there was a choice, by its path in the fingerprint.
EARLIER: Mapping[str, Any] = {
    "clip_text": "raw",
    "clip_normalizers": {},
    "input.on_fetch_error": "fail",
    "preprocessing.icc": "off",
    "rows.strict_images": True,
    "input.quoting": "csv",
    "image_size": 0,  # the checkpoint's own
    "sealed": False,
    "image_feature": False,
    "views": "off",
    "grids": "one",
    "evaluate": False,
    "convolutions": "direct",
    "products": "pairs",
    "painted_in": None,  # the dtype that it is drawn in
}
# Of these, the ones that a plan holds only if something else was chosen, so that other jobs keep their bytes.
UNSAID = ("views", "grids", "evaluate", "convolutions", "products", "painted_in")


class AnotherJob(UsageError):
    """The folder holds the output of another job; `differences` are the choices that differ, as the fingerprint calls
    them, with the value of each job."""

    def __init__(self, message: str, differences: Sequence[tuple[str, Any, Any]]) -> None:
        super().__init__(message, "output")
        self.message = message
        self.differences = differences

    def with_more(self, line: str) -> UsageError:
        """The same with a line more, if it is not empty."""
        return AnotherJob(f"{self.message}\n{line}", self.differences) if line else self


@dataclass(frozen=True)
class Segment:
    """A run of shards planned together: the first of a plan, or those that one extension added."""

    first_shard: int
    shards: int
    sources: int
    bytes: int
    rows: int | None  # None: not known for some source before it is read


@dataclass(frozen=True)
class Plan:
    """`fingerprint` decides the output bytes; `settings` is how the work is run, resolved once; `schema` is the
    JSON of the input schema. `passed_over` counts and names files of the input that are not read (`PassedOver`), as the
    last listing found them; plans of earlier versions have none."""

    command: str
    fingerprint: Mapping[str, Any]
    settings: Mapping[str, Any]
    schema: Mapping[str, Any]
    segments: tuple[Segment, ...] = ()
    passed_over: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        return sum(segment.shards for segment in self.segments)

    def choice(self, path: str) -> Any:
        """A choice in the fingerprint, such as "preprocessing.icc", or what was done before there was one."""
        found: Any = self.fingerprint
        for name in path.split("."):
            if name not in found:
                return EARLIER[path]
            found = found[name]
        return found

    @property
    def views(self) -> int:
        """The rows for each image of the input, of a job with views; 0 without them."""
        choice = self.choice("views")
        return 0 if choice == "off" else int(choice["count"])

    def to_dict(self) -> dict[str, Any]:
        names = {"shard_names": "sorted"} if self.shards > FIVE_DIGITS else {}
        return {"plan_version": PLAN_VERSION, **names, **asdict(self)}


def segment_of(shards: Sequence[Shard]) -> Segment:
    """Totals of newly planned shards, of which one at a time is looked at."""
    sources = size = 0
    rows: int | None = 0
    last = ""
    for shard in shards:
        for part in shard.slices:
            if part.source.uri != last:  # slices of one source follow one another
                last = part.source.uri
                sources += 1
                size += part.source.size
        found = known_rows(shard.slices)
        rows = None if rows is None or found is None else rows + found
    return Segment(first_shard=shards[0].index, shards=len(shards), sources=sources, bytes=size, rows=rows)


def store_segment(output: str, plan: Plan, shards: Sequence[Shard], scratch: str | None = None) -> Plan:
    """Add `shards` to `plan` and store them; if another run was first, its plan is returned instead.

    They are written in the folder `scratch` first, by default the system's for temporary files.
    """
    grown = replace(plan, segments=(*plan.segments, segment_of(shards)))
    with tempfile.TemporaryDirectory(prefix="vqbeam-plan-", dir=scratch) as folder:
        path = Path(folder) / "shards.parquet"
        _write_shards(path, shards, grown)
        won = storage.put_new(path, OutputFolder(output).shards(len(plan.segments)))
    stored = grown if won else load_plan(output)
    if stored is None:
        raise OutputDamaged(f"{output}: the plan that another run stored cannot be read")
    write_copy(output, stored)
    return stored


def _write_shards(path: Path, shards: Sequence[Shard], plan: Plan) -> None:
    schema = SHARD_SCHEMA.with_metadata({HEADER_KEY: json.dumps(plan.to_dict(), sort_keys=True)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows = ((shard.index, part) for shard in shards for part in shard.slices)
        while chunk := list(islice(rows, ROW_GROUP)):
            columns = {name: [getattr(part.source, name) for _, part in chunk] for name in SOURCE_COLUMNS}
            columns |= {name: [getattr(part, name) for _, part in chunk] for name in ("start", "stop", "offset")}
            columns |= {"shard": [shard for shard, _ in chunk], "texts": [part.texts or None for _, part in chunk]}
            writer.write_table(pa.Table.from_pydict(columns, schema))


def load_plan(output: str) -> Plan | None:
    """The plan stored in an output folder with all its segments; None if it has none."""
    plan: Plan | None = None
    segment = 0
    while True:
        uri = OutputFolder(output).shards(segment)
        try:
            with storage.open_read(uri) as file:
                metadata = pq.read_schema(file).metadata or {}
        except FileNotFoundError:
            return plan
        except StorageFailed as error:
            if isinstance(error.__cause__, NotADirectoryError):
                raise UsageError(f"{output} is a file, or in one, and no folder: choose another", "output") from error
            raise
        except (pa.ArrowException, OSError) as error:  # failures of the store are `StorageFailed`, no OSError
            raise OutputDamaged(f"the plan {uri} is damaged: {error}; {RESTORE}") from error
        if HEADER_KEY not in metadata:
            raise UsageError(f"{uri} is no plan of vqbeam: choose another folder", "output")
        try:
            values = json.loads(metadata[HEADER_KEY])
            version = values["plan_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputDamaged(f"the plan {uri} is damaged: {error}; {RESTORE}") from error
        if version != PLAN_VERSION:
            raise UsageError(
                f"{output} was planned by another version of vqbeam (plan version {version}, this one "
                f"reads {PLAN_VERSION}): finish it with that version, or choose another folder",
                "output",
            )
        plan = _plan_of(values)
        if plan.shards > FIVE_DIGITS and "shard_names" not in values:
            raise UsageError(
                f"{output} was planned by an earlier version of vqbeam, which gave shards past 99,999 other names: "
                "finish it with that version, or choose another folder",
                "output",
            )
        segment += 1


def _plan_of(values: Mapping[str, Any]) -> Plan:
    segments = tuple(Segment(**item) for item in values["segments"])
    passed_over = values.get("passed_over", {})
    return Plan(values["command"], values["fingerprint"], values["settings"], values["schema"], segments, passed_over)


def copied_plan(output: str) -> Plan | None:
    """The plan as its copy for people has it; None if that is missing or damaged."""
    try:
        values = json.loads(storage.read_bytes(storage.join(output, PLAN)))
        return _plan_of(values) if values["plan_version"] == PLAN_VERSION else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_copy(output: str, plan: Plan) -> None:
    """Write the copy for people of a stored plan."""
    text = json.dumps(plan.to_dict(), indent=1, sort_keys=True) + "\n"
    storage.put_bytes(text.encode(), storage.join(output, PLAN))


def check_fingerprint(
    output: str, plan: Plan, asked: Mapping[str, Any], allow_other_versions: bool = False
) -> dict[str, tuple[str, str]]:
    """Raise `UsageError` with the differences if `asked` would give other output than the stored plan.

    A value of None in `asked` agrees with any. Returns the packages whose versions differ, by name: the version that
    the plan was made with, and the one here. Unless `allow_other_versions`, these raise, too.
    """
    command = asked.get("command")
    if command not in (None, plan.command):
        raise UsageError(
            f"{output} belongs to `vqbeam {plan.command}`, this is `vqbeam {command}`: choose another folder, or "
            "overwrite to start over",
            "output",
        )
    if asked.get("schema_version") not in (None, plan.fingerprint.get("schema_version")):
        raise UsageError(
            f"{output} was begun by another version of vqbeam, whose rows have other columns: finish it with that "
            "version, choose another folder, or overwrite to start over",
            "output",
        )
    differences = sorted(_differences(plan.fingerprint, asked))
    others = [difference for difference in differences if _leaf(difference[0]) not in VERSIONS]
    if others:
        lines = "\n".join(_told(*difference) for difference in others)
        raise AnotherJob(
            f"{output} holds the output of another job:\n{lines}\n"
            "Use the same options to resume it, another folder for a new job, or overwrite to start over.",
            others,
        )
    versions = {_leaf(name): (old, new) for name, old, new in differences}
    if versions and not allow_other_versions:
        then, now = (", ".join(f"{name} {both[i]}" for name, both in versions.items()) for i in (0, 1))
        packages = " ".join(f"'{name}=={old}'" for name, (old, _) in versions.items() if name != "libavif")
        install = f"install what it was begun with (pip install {packages}), or " if packages else ""
        raise UsageError(
            f"{output} was begun with {then}; here is {now}, which may give other pixels or words: {install}go on with "
            "allow_other_versions, and the tables say which versions made them",
            "output",
        )
    return versions


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _told(name: str, old: Any, new: Any) -> str:
    if name == "input.prompts":  # a hash of the texts, or "files"
        said = ["files" if value == "files" else "texts given as prompt" for value in (old, new)]
        if said[0] == said[1]:
            return "  prompt: other texts"
        return f"  prompts: the folder has {said[0]}, not {said[1]}"
    return f"  {name}: the folder has {old!r}, this command asks for {new!r}"


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any, Any]]:
    for name, value in asked.items():
        old = stored.get(name, EARLIER.get(f"{path}{name}"))
        if name in VERSIONS and old is None:
            continue  # the plan is from before this was noted
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from _differences(old, value, f"{path}{name}.")
        elif value is not None and json.loads(json.dumps(value)) != old:
            yield f"{path}{name}", old, value
