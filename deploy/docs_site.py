"""What mkdocs.yml does with our pages: the README is the first; links that leave `docs/` lead to the repository.

Where that is, VQBEAM_REPOSITORY says: the folder that serves its files by their paths. Without it they are plain text.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from deploy.links import below, relinked

ROOT = Path(__file__).parents[1]
FIRST, CHANGES = "index.md", "CHANGELOG.md"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie beside `docs/`."""
    for name, source in ((FIRST, "README.md"), (CHANGES, CHANGES)):
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    name = page.file.src_uri
    folder = "" if name in (FIRST, CHANGES) else "docs"
    repository = below(os.environ.get("VQBEAM_REPOSITORY", ""))

    def target(path: str) -> str | None:
        whole = posixpath.normpath(posixpath.join(folder, path))
        if whole == CHANGES:
            return CHANGES
        return whole.removeprefix("docs/") if whole.startswith("docs/") else repository(whole)

    return relinked(markdown, target)
