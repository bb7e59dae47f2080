"""A random sample of what an output folder holds, from few of its objects, and the same in each run."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import accumulate, count, groupby, islice
from operator import itemgetter
from typing import Any

from transforms import storage
from transforms.batch import CAPTION, KEY, PROMPT, SAMPLE
from transforms.outputs.layout import Layout, StoredImage

SEED = 0
MOST = 16  # images of one row that are taken, the first ones


def places(sizes: Sequence[int], wanted: int, seed: int = SEED) -> list[tuple[int, float]]:
    """Random places in objects of these sizes, in order: the number of an object, and the share of it before the place.

    The objects lie end to end and are cut into `wanted` equal parts, each with one place. So an object has places by
    its size, and none is read to choose.
    """
    ends = list(accumulate(sizes))
    if not ends or not ends[-1]:
        return []
    numbers = random.Random(seed)
    found = []
    for part in range(wanted):
        at = (part + numbers.random()) / wanted * ends[-1]
        item = min(bisect_right(ends, at), len(ends) - 1)
        found.append((item, 1 - (ends[item] - at) / sizes[item]))
    return found


def sample_images(
    output: str, layout: Layout, columns: Sequence[str], total: int, wanted: int, seed: int = SEED
) -> Iterator[tuple[str, list[StoredImage]]]:
    """Some `wanted` of the `total` images in an output folder, in plan order: all of them if there are no more.

    Images that are several of one row of the input (those with `sample`) come together, at most `MOST` of them; every
    other comes by itself, with the URI of their object. They can be read until the next are asked for.
    """
    columns = tuple({*columns, KEY, PROMPT, CAPTION, SAMPLE})
    objects = list(storage.list_files(storage.join(output, layout.main.folder)))

    def from_the_first() -> Generator[tuple[str, list[StoredImage]], None, None]:
        for info in objects:
            yield from _from(info.uri, output, layout, columns, [None])

    if total <= wanted:
        yield from from_the_first()
        return
    with closing(from_the_first()) as first:
        each = len(next(first, ("", [None]))[1])
    rows = max(1, wanted // each)
    any_found = False
    for number, found in groupby(places([info.size for info in objects], rows, seed), key=itemgetter(0)):
        for group in _from(objects[number].uri, output, layout, columns, [share for _, share in found]):
            any_found = True
            yield group
    if not any_found:  # every row has more images than are read before a place
        yield from islice(from_the_first(), rows)


def _from(
    uri: str, output: str, layout: Layout, columns: Sequence[str], shares: Sequence[float | None]
) -> Iterator[tuple[str, list[StoredImage]]]:
    """The images of the row of the input at each of the `shares` of an object, else of the next row; all for None."""
    last = -1
    with layout.open_images(uri, output, columns) as images:
        for share in shares:
            for group in _groups(images(share or 0.0), share):
                if group[0].number > last:
                    last = group[0].number
                    yield uri, group
                    if share is not None:
                        break


def _groups(images: Iterator[StoredImage], share: float | None) -> Iterator[list[StoredImage]]:
    """The images of one row of the input after the other, from the one at `share` on.

    Where reading began inside an object, the first row may lack images, and is passed over.
    """
    numbers = count()

    def row_of(image: StoredImage) -> tuple[Any, ...]:
        row = image.row
        return (row[KEY], row.get(PROMPT), str(row.get(CAPTION))) if SAMPLE in row else (next(numbers),)

    for position, (_, found) in enumerate(groupby(images, key=row_of)):
        group = list(islice(found, MOST))
        end = group[-1].end
        for image in found:
            end = image.end
        cut = SAMPLE in group[0].row and position == 0 and group[0].number > 0
        if share is None or (end > share and not cut):
            yield group
