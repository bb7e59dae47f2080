"""The unit of work: a shard is an ordered list of slices of sources. Small, immutable, picklable."""

from __future__ import annotations

from dataclasses import dataclass

INLINE = "inline"  # the format of a source that is no file: its rows are in the plan


@dataclass(frozen=True)
class Source:
    """A file that rows come from.

    `uri` is absolute, with its scheme unless local. `version` is what tells a changed file from the same one:
    generation or etag of an object store, mtime locally. `format` is a key of `transforms.inputs.listing.ENDINGS`,
    or `INLINE`. `root` is the prefix that keys made from paths leave out. `rows` is known where
    planning read it.
    """

    uri: str
    format: str
    size: int
    version: str
    root: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of a source; `stop` None is "to the end". `offset` is the byte where row `start` begins
    in an uncompressed text table, 0 elsewhere. `texts` are the rows of an `INLINE` source themselves."""

    source: Source
    start: int = 0
    stop: int | None = None
    offset: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """`index` names the output files; `slices` are read in order."""

    index: int
    slices: tuple[Slice, ...]

    @property
    def name(self) -> str:
        return f"{self.index:05d}"
