"""Which files beside images are texts of them: `a.txt`, `a.TXT` and `a.jpg.txt` of `a.jpg`.

A spelling is the ending as it is written, "*." before it if it follows the whole name of the image: "txt", "*.txt".
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.inputs.uris import stem

APPENDED = "*."
CHUNK = 1 << 16


@dataclass(frozen=True)
class TextsBeside:
    """For each file beside the images, in order, the number of its spelling in `spellings`, -1 if it is no text of an
    image; and a number that stands for the image that it is of."""

    spellings: tuple[str, ...]
    numbers: array[int]
    images: array[int]


def ending_of(spelling: str) -> str:
    """In lower case."""
    return spelling.removeprefix(APPENDED).lower()


def text_uri(image: str, spelling: str) -> str:
    """Where the text of an image is, if it has one of that spelling."""
    if spelling.startswith(APPENDED):
        return f"{image}.{spelling.removeprefix(APPENDED)}"
    return f"{stem(image)}.{spelling}"


def texts_beside(images: Iterable[str], beside: Sequence[str] | Iterable[str]) -> TextsBeside:
    """Finds the texts by hashes, 16 bytes an image."""
    found: dict[str, int] = {}
    numbers, of = array("i"), array("q")
    stems, names = array("q"), array("q")
    for uri in images:
        stems.append(hash(stem(uri)))
        names.append(hash(uri))
    # A text of `a.jpg.txt` is of the image with the stem `a`, as `a.txt` is.
    stem_hashes, name_hashes = np.frombuffer(stems, np.int64), np.frombuffer(names, np.int64)
    by_name = np.argsort(name_hashes)
    sorted_stems, sorted_names = np.sort(stem_hashes), name_hashes[by_name]
    chunk: list[str] = []

    def look() -> None:
        before = np.array([hash(_base(uri)) for uri in chunk], np.int64)
        appended_at = np.minimum(np.searchsorted(sorted_names, before), len(sorted_names) - 1)
        appended = sorted_names[appended_at] == before
        beside_at = np.minimum(np.searchsorted(sorted_stems, before), len(sorted_stems) - 1)
        plain = sorted_stems[beside_at] == before
        for uri, is_plain, is_appended, at, own in zip(
            chunk, plain.tolist(), appended.tolist(), appended_at.tolist(), before.tolist(), strict=True
        ):
            ending = uri.rpartition(".")[2]
            if not (is_plain or is_appended) or ending == uri or "/" in ending:
                numbers.append(-1)
                of.append(0)
                continue
            spelling = ending if is_plain else APPENDED + ending
            numbers.append(found.setdefault(spelling, len(found)))
            of.append(own if is_plain else int(stem_hashes[by_name[at]]))
        chunk.clear()

    if len(stem_hashes):
        for uri in beside:
            chunk.append(uri)
            if len(chunk) == CHUNK:
                look()
        if chunk:
            look()
    else:
        for _ in beside:
            numbers.append(-1)
            of.append(0)
    return TextsBeside(tuple(found), numbers, of)


def _base(uri: str) -> str:
    """A path without its ending; unlike `stem`, `.gz` is one as any other."""
    folder, slash, name = uri.rpartition("/")
    return folder + slash + name.rpartition(".")[0]
