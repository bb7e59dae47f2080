"""Output folders of other jobs inside a folder that is read: their files would be taken for its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from transforms.errors import UsageError, amount
from transforms.inputs.file_list import FileList

SHOWN = 3  # folders that a message names


def refuse_outputs(
    pattern: str, outputs: Sequence[str], by_format: Mapping[str, FileList], input_format: str | None
) -> None:
    """Raise `UsageError` if files of a format in the folder `pattern` lie in one of `outputs`, which end with a slash.

    Files of another format than `input_format`, if it is given, are not read.
    """
    formats = by_format if input_format is None else {input_format: by_format.get(input_format, FileList())}
    folders = {folder for files in formats.values() for folder, _ in files.folders}
    taken = [output for output in outputs if any(folder.startswith(output) for folder in folders)]
    if not taken:
        return
    names = ", ".join(output.rstrip("/") for output in taken[:SHOWN])
    more = f" and {amount(len(taken) - SHOWN, 'others')}" if len(taken) > SHOWN else ""
    inside = tuple(taken)
    outside = (found.uri for found in chain(*formats.values()) if not found.uri.startswith(inside))
    wanted = next(outside, None) or next(found.uri for found in chain(*formats.values()))
    folder, _, name = wanted.rpartition("/")
    example = f"{folder}/*.{name.rpartition('.')[2]}"
    raise UsageError(
        f"{pattern} holds the output of other jobs, whose files would be read as its own: {names}{more}. Give a "
        f"pattern for what is to be read, such as '{example}'"
    )
