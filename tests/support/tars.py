"""Tars for tests, from names and contents."""

from __future__ import annotations

import io
import tarfile

Members = list[tuple[str, bytes]]


def tar_of(members: Members, **options: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pairs(count: int, size: int = 700) -> Members:
    """An image (any bytes will do for a reader) and a text for each key."""
    return [
        member
        for number in range(count)
        for member in ((f"{number:05d}.jpg", b"%05d" % number * (size // 5)), (f"{number:05d}.txt", b"cap %d" % number))
    ]
