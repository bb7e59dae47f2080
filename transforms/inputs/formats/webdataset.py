"""WebDataset tars: samples are consecutive members whose names agree up to the first dot of the file name."""

from __future__ import annotations

import math
import tarfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from transforms import storage
from transforms.errors import RowRejected, brief
from transforms.inputs.columns import IMAGE_EXTENSIONS, sample_schema
from transforms.inputs.fetch import too_large
from transforms.inputs.file_list import Found
from transforms.inputs.formats import tar
from transforms.inputs.formats.format import PEEKED_FILES, PEEKERS, Format, Piece, Planned, PlanTask, by_slice
from transforms.inputs.formats.tar_links import Links
from transforms.inputs.formats.tar_samples import PLACES, BrokenSamples, Sample, Wanted, samples
from transforms.inputs.request import READING, InputSchema
from transforms.inputs.rows import Row, fill_sample
from transforms.inputs.uris import relative_to, stem
from transforms.inputs.values import MAX_TEXT_BYTES, TypeGuess, note
from transforms.ledger.types import Slice

READ_BUFFER = 4 << 20
PEEK_BYTES = 1 << 20
PEEK_SAMPLES = 8
PEEK_TYPE_BYTES = 32 << 20  # of the first tar, while a field of the json has been nothing but null
SHOWN_MEMBERS = 8
RULE = (
    "the members of a sample stand side by side in the tar and share their name up to the first dot; "
    "`tar --sort=name` packs them so"
)
MORE_MEMBERS = "members with further endings, which the first samples have not, were left out"


@dataclass
class Seen:
    """What the first samples have: `fields` of their json, and their extensions, with whether those hold text."""

    fields: TypeGuess = field(default_factory=TypeGuess)
    extensions: dict[str, bool | None] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        if "json" in sample.data:
            self.fields.add_json(sample.data["json"])
        for extension, size in sample.sizes.items():
            known = self.extensions.get(extension)
            if extension.rpartition(".")[2] in IMAGE_EXTENSIONS:
                known = False
            elif extension in sample.data:
                known = known is not False and _is_text(sample.data[extension])
            elif size > PEEK_BYTES:
                known = False
            self.extensions[extension] = known

    def columns(self) -> pa.Schema:
        """The types of the members that can pass through: string, or binary."""
        return pa.schema(
            [
                (extension, pa.binary() if text is False else pa.string())
                for extension, text in self.extensions.items()
                if extension not in ("", "json") and text is not None
            ]
        )


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def plan(task: PlanTask) -> Planned:
    """Pieces cut by the number of samples, estimated from the first ones of a tar."""
    seen = Seen()
    image = task.request.image_column if task.schema is None else task.schema.image
    rule = READING if task.schema is None else task.schema.reading
    usual = 0.0
    for found in task.inputs.files[:PEEKED_FILES]:
        more = PEEK_TYPE_BYTES if not usual and task.schema is None else 0
        mean = peek(found.uri, seen, image, rule, more)
        usual = usual or mean
        if usual and not (task.schema is None and seen.fields.has_nulls_only):
            break
    schema = task.schema or sample_schema(
        task.request, seen.fields.schema(), seen.extensions, task.first, seen.columns()
    )
    large = [
        found.uri for found in task.files if _samples(found, usual) > task.rows_per_shard and not _is_packed(found)
    ]
    with ThreadPoolExecutor(PEEKERS) as pool:
        own = dict(zip(large, pool.map(lambda uri: peek(uri, Seen(), image, rule), large), strict=True))
    pieces: list[Piece] = []
    for found in task.files:
        source = found.source("webdataset")
        estimate = _samples(found, own.get(found.uri, usual))
        least = _samples(found, own.get(found.uri, usual), tarfile.RECORDSIZE)  # so that no shard is without rows
        cuts = 1 if _is_packed(found) else max(1, math.ceil(least / task.rows_per_shard))
        for index in range(cuts):
            start = index * task.rows_per_shard
            stop = start + task.rows_per_shard if index < cuts - 1 else None
            rows = task.rows_per_shard if stop is not None else max(1, estimate - start)
            pieces.append(Piece(Slice(source, start, stop), rows))
    return pieces, schema


def _is_packed(found: Found) -> bool:
    """A gzipped tar stays whole: to get to its middle costs unpacking all that is before."""
    return found.uri.lower().endswith((".gz", ".tgz"))


def _samples(found: Found, sample_bytes: float, zeros: int = (tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE) // 2) -> int:
    """The number of samples, estimated. At a tar's end are two to twenty blocks of `zeros`."""
    return max(1, math.ceil((found.info.size - zeros) / sample_bytes)) if sample_bytes else 1


def peek(uri: str, seen: Seen, image: str | None = None, rule: int = READING, more: int = 0) -> float:
    """Adds the first samples of a tar, about `PEEK_BYTES` of it, to `seen`; returns their mean packed size, 0 if none.

    As long as a field of their json has been null only, up to `more` bytes are looked at.
    """
    count = last = 0
    mean = 0.0

    def limit(extension: str) -> int:
        if extension == "json":
            return MAX_TEXT_BYTES
        return 0 if extension in IMAGE_EXTENSIONS or extension == image else PEEK_BYTES

    with storage.open_unpacked(uri, READ_BUFFER) as stream:
        try:
            for sample in samples(stream, 0, None, Wanted(limit, partial(_is_image, image=image), rule)):
                seen.add(sample)
                count, last = sample.number + 1, sample.offset + sum(map(tar.packed_size, sample.sizes.values()))
                if last >= PEEK_BYTES and count >= PEEK_SAMPLES:
                    mean = mean or last / count
                    if last >= more or not seen.fields.has_nulls_only:
                        break
        except BrokenSamples:
            pass  # reading it makes that a rejected row
    return mean or (last / count if count else 0.0)


def count(part: Slice, enough: int, schema: InputSchema) -> int:
    wanted = Wanted(lambda extension: 0, partial(_is_image, image=schema.image), schema.reading)
    rows = 0
    with storage.open_unpacked(part.source.uri, READ_BUFFER) as stream:
        try:
            for _ in samples(stream, part.start, part.stop, wanted):
                rows += 1
                if rows >= enough:
                    return rows
        except BrokenSamples as broken:
            rows += broken.is_in(part)
    return rows


def read(part: Slice, schema: InputSchema, max_bytes: int, notices: Counter[str]) -> Iterator[Row]:
    """Samples [start, stop) of a tar, streamed."""
    uri = part.source.uri
    texts = tuple(name for name in dict.fromkeys(("json", schema.caption, *schema.members)) if name)

    def limit(extension: str) -> int:
        if _is_image(extension, schema.image):
            return max_bytes
        return MAX_TEXT_BYTES if extension in texts else 0

    links = Links(uri, max(max_bytes, MAX_TEXT_BYTES))
    told = notices if schema.reading > 1 else None
    wanted = Wanted(limit, partial(_is_image, image=schema.image), schema.reading, links, told)
    tar_is = part.source, schema.image, schema.reading
    sought = PLACES.nearest(tar_is, part.start).number < part.start  # and a request takes as long as some MiB
    with storage.open_unpacked(uri, READ_BUFFER, part.whole or sought) as stream, closing(links):
        try:
            for sample in samples(stream, part.start, part.stop, wanted, tar_is):
                yield _row(sample, uri, schema, texts, max_bytes, notices)
        except BrokenSamples as broken:
            if broken.is_in(part):
                key = f"{stem(relative_to(uri, part.source.root))}-{broken.number:09d}"
                yield Row(key, uri, error=("broken_archive", f"sample {broken.number}: {broken}"))


def _is_image(extension: str, image: str | None) -> bool:
    return extension == image if image else extension in IMAGE_EXTENSIONS


def _row(
    sample: Sample, uri: str, schema: InputSchema, members: Collection[str], max_bytes: int, notices: Counter[str]
) -> Row:
    """The row of a sample; `members` are the extensions of what belongs to it besides its image."""
    images = [name for name in sample.sizes if _is_image(name, schema.image)]
    row = Row(sample.name, f"{uri}#{sample.name}")
    if images:
        name = images[0]
        row.uri = f"{uri}#{sample.name}.{name}"
        if name in sample.data:
            row.payload["image"] = sample.data[name]
        elif name in sample.lost:
            row.reject(RowRejected("missing_image", f"{_listed([f'{sample.name}.{name}'])} is {sample.lost[name]}"))
        else:
            row.reject(too_large(row.uri, sample.sizes[name], max_bytes))
        if len(images) > 1:
            note(notices, f"a sample has several images ({_listed(images)}); the first was taken")
    else:
        row.reject(RowRejected("missing_image", f"no image among the members {_listed(sample.sizes)}: {RULE}"))
    texts: dict[str, bytes] = {}
    for member in members:
        if member in sample.data:
            texts[member] = sample.data[member]
        elif member in sample.lost:
            row.reject(RowRejected("broken_record", f"the {_listed([member])} is {sample.lost[member]}"))
        elif member in sample.sizes:
            size = sample.sizes[member]
            row.reject(RowRejected("broken_record", f"the {member} has {size} bytes, more than {MAX_TEXT_BYTES}"))
    if len(sample.sizes) > len(texts) + len(images) and schema.reading > 1 and not schema.chosen:
        for extension in sample.sizes.keys() - texts.keys() - set(images):
            note(notices, f"members {_listed([extension])} pass through as no column and were left out", MORE_MEMBERS)
    return fill_sample(row, texts, schema, notices)


def _listed(extensions: Iterable[str]) -> str:
    """Some extensions of a sample, for messages: not all, and none in full length."""
    every = list(extensions)
    names = ", ".join(map(brief, every[:SHOWN_MEMBERS]))
    return names if len(every) <= SHOWN_MEMBERS else f"{names} and {len(every) - SHOWN_MEMBERS:,} more"


FORMAT = Format("webdataset", (".tar", ".tar.gz", ".tgz"), ("images",), plan, partial(by_slice, read), count)
