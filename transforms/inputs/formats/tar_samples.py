"""Samples of a tar: which members belong together, and which of their contents are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from tarfile import TarInfo
from typing import BinaryIO

from transforms.inputs.formats import tar
from transforms.inputs.formats.tar_links import Links, LostLink
from transforms.inputs.formats.tar_places import Place, Places
from transforms.inputs.request import READING
from transforms.inputs.values import utf8
from transforms.ledger.types import Slice

MEMBER_NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]*)$")
MAX_MEMBERS = 1024  # of a sample; what follows under the same name is another sample
MAX_HELD_BYTES = 256 << 20  # of one sample's members, unless a single one may be larger
UNDECIDED_MEMBERS = 32  # of one name, after which it is decided whether they are one sample
UNDECIDED_BYTES = 64 << 20
PLACES = Places()
NO_SAMPLE = "members whose names have no ending, or begin with a dot, belong to no sample and were left out"
NO_FILE = "members that are no files (devices, pipes) were left out"


@dataclass
class Sample:
    """Members of one sample by extension, in order: `sizes` of all, `data` of those that were wanted and not too large,
    and `lost` with the reason why a link has no data.

    `offset` is where the sample begins in the (unpacked) tar. `tails` are the extensions with several dots as they are
    written. `group` is the name up to the first dot; with `by_last_dot`, `name` is that up to the last. `settled`: the
    sample is not to be split. `packed` are the bytes of its members, `held` those of `data`.
    """

    name: str
    number: int
    offset: int
    group: str
    settled: bool = False
    by_last_dot: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    tails: dict[str, str] = field(default_factory=dict)
    packed: int = 0
    held: int = 0


@dataclass(frozen=True)
class Wanted:
    """What is asked of the members: `limit` is, by extension, the most bytes of one that is to be read (0 passes it
    over), `is_image` says which extensions are images. `rule` is `InputSchema.reading`.

    `links` resolves links; without it, they count and have no content. `notices` counts members of no sample.
    """

    limit: Callable[[str], int]
    is_image: Callable[[str], bool]
    rule: int = READING
    links: Links | None = None
    notices: Counter[str] | None = None


class BrokenSamples(Exception):
    """The tar cannot be read on; `number` is the sample that the break takes away."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    def is_in(self, part: Slice) -> bool:
        """Whether the sample is one of the slice."""
        return part.start <= self.number and (part.stop is None or self.number < part.stop)


def samples(
    stream: BinaryIO, start: int, stop: int | None, wanted: Wanted, tar_is: Hashable = None
) -> Iterator[Sample]:
    """Samples [start, stop) in order; only the headers of those before `start` are read, and none if this process has
    read `tar_is` up to there by the same rules.

    A member whose extension the sample has already begins another sample of the same name: both are kept. A name
    without an image by its first dot may be several samples by its last: see `_split`.
    Raises `BrokenSamples`. Before that, the last sample is yielded if all its members that were found are whole and
    none is missing that the sample before it has: half a sample would be an image that lost its caption.
    """
    current: Sample | None = None
    place = PLACES.nearest(tar_is, start) if tar_is else Place()
    before = set(place.before)
    following = place.number
    progress = tar.Progress(place.offset)
    lenient = wanted.rule > 1

    def within(sample: Sample) -> bool:
        return start <= sample.number and (stop is None or sample.number < stop)

    try:
        for member in tar.members(stream, lenient, progress):
            linked = not member.isreg()
            if linked and not (lenient and (member.islnk() or member.issym())):
                if wanted.notices is not None and following >= start:
                    wanted.notices[NO_FILE] += 1
                continue
            match = MEMBER_NAME.match(member.name.removeprefix("./"))
            if match is None:
                if wanted.notices is not None and following >= start:
                    wanted.notices[NO_SAMPLE] += 1
                continue
            group, tail = utf8(match.group(1)), match.group(2)
            name = group
            by_last_dot = place.by_last_dot if current is None else current.by_last_dot and current.group == group
            if by_last_dot:
                name, _, tail = f"{group}.{tail}".rpartition(".")
            extension = tail.lower()
            if (
                current is None
                or name != current.name
                or extension in current.sizes
                or (lenient and len(current.sizes) >= MAX_MEMBERS)
            ):
                if current is not None:
                    done = _split(current, wanted)
                    yield from filter(within, done)
                    before = set(done[-1].sizes)
                    following = done[-1].number + 1
                if stop is not None and following >= stop:
                    if tar_is and progress.plain:
                        PLACES.add(tar_is, Place(following, member.offset, by_last_dot, frozenset(before)))
                    return
                current = Sample(name, following, member.offset, group, by_last_dot or not lenient, by_last_dot)
            _add(current, extension, tail, member, stream, start, wanted)
            undecided = not current.settled
            if undecided and (len(current.sizes) >= UNDECIDED_MEMBERS or current.packed >= UNDECIDED_BYTES):
                *done, current = _split(current, wanted)
                yield from filter(within, done)
                before = set(done[-1].sizes) if done else before
                following = current.number
                current.settled = True
    except (tar.CutMember, tar.NoEnd, tar.BrokenTar) as error:
        done = _split(current, wanted) if current else []
        message = f"the tar is broken: {error}" if isinstance(error, tar.BrokenTar) else str(error)
        before = set(done[-2].sizes) if len(done) > 1 else before
        half = bool(done) and not before <= done[-1].sizes.keys()
        if isinstance(error, tar.CutMember) or half:
            yield from filter(within, done[:-1])
            raise BrokenSamples(done[-1].number, message) from error
        yield from filter(within, done)
        if isinstance(error, tar.BrokenTar):  # some writers leave out the end, so only half a sample tells of a loss
            raise BrokenSamples(done[-1].number + 1 if done else 0, message) from error
        return
    if current is not None:
        yield from filter(within, _split(current, wanted))


def _add(
    sample: Sample, extension: str, tail: str, member: TarInfo, stream: BinaryIO, start: int, wanted: Wanted
) -> None:
    """Adds a member to its sample, with its content if it is wanted. Raises `tar.CutMember`."""
    sample.sizes[extension] = member.size
    sample.packed += member.size
    limit = wanted.limit(extension)
    first = sample.number  # of the samples that may become of this one, the one that the member belongs to
    if not sample.settled:
        if wanted.is_image(extension):
            sample.settled = True
        elif "." in extension:
            sample.tails[extension] = tail
            first += len(sample.sizes)
            limit = max(limit, wanted.limit(extension.rpartition(".")[2]))
    if first < start or not limit:
        tar.pass_over(stream, member)
        return
    room = max(limit, MAX_HELD_BYTES) - sample.held
    if member.isreg():
        if member.size > limit:
            tar.pass_over(stream, member)
        elif member.size > room:
            tar.pass_over(stream, member)
            sample.lost[extension] = f"beyond the {MAX_HELD_BYTES:,} bytes that a sample may have"
        else:
            sample.data[extension] = tar.content(stream, member)
            sample.held += member.size
    elif wanted.links is not None:
        try:
            target = wanted.links.find(member)
            sample.sizes[extension] = target.size
            if target.size <= min(limit, room):
                sample.data[extension] = wanted.links.content(target)
                sample.held += target.size
        except LostLink as lost:
            sample.lost[extension] = str(lost)


def _split(sample: Sample, wanted: Wanted) -> list[Sample]:
    """The samples that a finished one is: itself, or those that its members make by the last dot of their names.

    That is so if no member is an image by the first dot, and by the last dot either each sample has an image, or an
    image stands with a text: `cat.1.jpg`, `cat.2.jpg` are two samples; `1.input.jpg`, `1.prompt.txt` remain one.
    """
    if sample.settled or not sample.tails:
        return [sample]
    parts: list[Sample] = []
    offset = sample.offset
    for extension, size in sample.sizes.items():
        name, _, tail = f"{sample.group}.{sample.tails.get(extension, extension)}".rpartition(".")
        last = tail.lower()
        if not parts or name != parts[-1].name or last in parts[-1].sizes:
            parts.append(Sample(name, sample.number + len(parts), offset, sample.group, True, True))
        part = parts[-1]
        part.sizes[last] = size
        for ours, theirs in ((part.data, sample.data), (part.lost, sample.lost)):
            if extension in theirs:
                ours[last] = theirs[extension]  # type: ignore[assignment]
        offset += tar.packed_size(size)
    images = [any(map(wanted.is_image, part.sizes)) for part in parts]
    paired = any(image and len(part.sizes) > 1 for image, part in zip(images, parts, strict=True))
    return parts if all(images) or paired else [sample]
