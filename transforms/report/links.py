"""Links from the page to files, such that a folder may be moved or served with its page in it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from transforms import storage


class Links:
    """Of a page in the folder `page`, to what is in the folder `output`; both are absolute."""

    def __init__(self, output: str, page: str) -> None:
        self._output = output
        if page == output:
            self._before: str | None = ""
        elif storage.is_local(page) and storage.is_local(output):
            self._before = Path(os.path.relpath(output, page)).as_posix() + "/"
        else:
            self._before = None

    def inside(self, path: str) -> str | None:
        """A link to a path below the output folder; None if a browser could not follow one."""
        return None if self._before is None else quote(f"./{self._before}{path}")

    @staticmethod
    def elsewhere(uri: str) -> str | None:
        """A link to a local file."""
        return Path(uri).as_uri() if storage.is_local(uri) and os.path.isabs(uri) and os.path.isfile(uri) else None
