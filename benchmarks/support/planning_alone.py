"""Peak memory of a vqbeam command that makes, extends or resumes its plan and launches nothing.

`python -m benchmarks.support.planning_alone FILE IMAGES encode ...` leaves its peak in FILE. For an input in gs:// it
answers for a bucket of so many images, page by page, as Google's JSON API does.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import gcsfs

from benchmarks.support.peak_memory import own_peak_kib
from pipelines import pending
from pipelines.__main__ import main
from pipelines.launch_result import LaunchResult
from pipelines.process import reuse_freed_memory

PAGE = 1000  # objects in an answer
FOLDER = 1000  # images in a folder


def image_name(number: int) -> str:
    """The name of an image in a dataset of many folders."""
    return f"part-{number // FOLDER:06d}/IMG_{number:09d}.jpg"


def _answer(images: int, **asked: Any) -> dict[str, Any]:
    """A page of objects below `prefix`, as Google's JSON API has them."""
    prefix = asked.get("prefix") or ""
    start = int(asked.get("pageToken") or 0)
    items = [
        {
            "kind": "storage#object",
            "id": f"bucket/{prefix}{image_name(number)}/{1732924800000000 + 977 * number}",
            "selfLink": f"https://www.googleapis.com/storage/v1/b/bucket/o/{prefix}{image_name(number)}",
            "mediaLink": f"https://www.googleapis.com/download/storage/v1/b/bucket/o/{prefix}{image_name(number)}",
            "name": f"{prefix}{image_name(number)}",
            "bucket": "bucket",
            "generation": str(1732924800000000 + 977 * number),
            "metageneration": "1",
            "contentType": "image/jpeg",
            "storageClass": "STANDARD",
            "size": str(50_000 + number * 7919 % 90_000),
            "md5Hash": f"{number * 2654435761 % 2**64:022x}==",
            "crc32c": f"{number * 2654435761 % 2**32:08x}",
            "etag": f"{number:012x}=",
            "timeCreated": "2026-11-30T00:00:00.000Z",
            "updated": "2026-11-30T00:00:00.000Z",
        }
        for number in range(start, min(start + PAGE, images))
    ]
    more = {"nextPageToken": str(start + PAGE)} if start + PAGE < images else {}
    return {"kind": "storage#objects", "items": items, **more}


def _pretend_to_be_a_bucket(images: int) -> None:
    async def call(self: Any, method: str, path: str, *args: Any, **asked: Any) -> Any:
        if method == "GET" and path == "b/{}/o":
            return _answer(0 if re.search(r"\.\w+/?$", asked.get("prefix") or "") else images, **asked)
        raise FileNotFoundError(args)

    gcsfs.GCSFileSystem._call = call
    gcsfs.GCSFileSystem.call = gcsfs.core.asyn.sync_wrapper(call)


if __name__ == "__main__":
    reuse_freed_memory()  # as the command does
    stopped = LaunchResult("STOPPED", signal.SIGINT)
    pending.run_pending = lambda *args: stopped
    _pretend_to_be_a_bucket(int(sys.argv[2]))
    code = main(sys.argv[3:])
    Path(sys.argv[1]).write_text(str(own_peak_kib()), encoding="ascii")
    sys.exit(0 if code == stopped.exit_code else code)
