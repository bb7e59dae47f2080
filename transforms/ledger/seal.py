"""The seal of a main object: the job and the shard that it is of, and a checksum of its rows.

It stands beside the counts in a table or tar. An object without a mark is taken for its shard only if its seal holds.
Plans of earlier versions have no seals.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import IO, Any

from transforms.ledger.types import ShardCounts, StoredObject, shard_number

CHUNK = 1 << 20
ELSEWHERE = ("patterns", "format")  # of the input: the same rows from elsewhere give the same bytes


def job_id(fingerprint: Mapping[str, Any]) -> str:
    """The job of a plan, short."""
    asked = {name: value for name, value in fingerprint["input"].items() if name not in ELSEWHERE}
    text = json.dumps({**fingerprint, "input": asked}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class HashedFile(io.RawIOBase):
    """Writes through to a file, and keeps the number and the SHA-256 of the bytes so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(memoryview(data).cast("B"))
        return len(memoryview(data).cast("B"))

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None:
        self._file.flush()

    def written(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def sealed(counts: ShardCounts, job: str, shard: str, file: HashedFile, images: Iterable[StoredObject] = ()) -> str:
    """The JSON of the counts of a shard, with the seal of what is written of it; without one if `job` is empty."""
    if not job:
        return counts.to_json()
    seal = {"job": job, "shard": shard_number(shard), **file.written(), "images": images_hash(images)}
    return json.dumps({**asdict(counts), "seal": seal}, sort_keys=True)


def broken_seal(text: str, job: str, shard: str, file: IO[bytes], images: Iterable[StoredObject]) -> str | None:
    """Why an object with the JSON `text` is not what the job wrote for the shard; None if it is."""
    seal = json.loads(text).get("seal")
    if not isinstance(seal, dict):
        return "it has no seal, and was not written by this job"
    if seal.get("job") != job:
        return "it is of another job"
    if seal.get("shard") != shard_number(shard):
        return f"it is of shard {seal.get('shard')}"
    file.seek(0)
    digest, left = hashlib.sha256(), int(seal["bytes"])
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if left or digest.hexdigest() != seal["sha256"]:
        return "its rows are not those that were written"
    return None if images_hash(images) == seal["images"] else "its images are not those that were written"


def images_hash(images: Iterable[StoredObject]) -> str:
    return hashlib.sha256(json.dumps([asdict(image) for image in images]).encode()).hexdigest()[:16]
