"""Lists of the files of images or codes of a shard, beside the marks, which so stay small: a JSON object a line.

A list is named by its content and put before the mark that names it. Every attempt at a shard that comes to the same
files puts the same list, whatever versions of packages it has: one that comes late must not take it for another's.
Marks of earlier versions list the files themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from operator import attrgetter

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import OutputFolder, is_inside
from transforms.ledger.marks import REPAIR, Mark
from transforms.ledger.types import StoredObject


def store_list(folder: OutputFolder, shard: str, files: Iterable[StoredObject]) -> StoredObject:
    """Put the list of the files of a shard, in the order of their paths."""
    lines = (json.dumps(asdict(item), sort_keys=True) for item in sorted(files, key=attrgetter("path")))
    data = "".join(f"{line}\n" for line in lines).encode()
    content_hash = hashlib.sha256(data).hexdigest()
    uri = folder.file_list(shard, content_hash)
    storage.put_new(data, uri)
    return StoredObject(folder.relative(uri), len(data), content_hash)


def listed_objects(output: str, mark: Mark) -> tuple[StoredObject, ...]:
    """All objects of a mark, its files among them. Raises `OutputDamaged` if their list is gone or damaged."""
    if mark.files is None:
        return mark.objects
    try:
        data = storage.read_bytes(storage.join(output, mark.files.path))
        found = tuple(StoredObject(**json.loads(line)) for line in data.splitlines())
        if not all(is_inside(item.path) and item.size >= 0 for item in found):
            raise ValueError("it lists files outside of the folder")
    except FileNotFoundError as error:
        raise OutputDamaged(f"{mark.files.path} is missing: {REPAIR.format(output)}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputDamaged(f"{mark.files.path} is damaged: {error}: {REPAIR.format(output)}") from error
    return (*mark.objects, mark.files, *found)
