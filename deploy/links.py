"""Relative links of our pages for places that have the page without the repository: a package index, the docs site."""

from __future__ import annotations

import re
from collections.abc import Callable

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
Target = Callable[[str], "str | None"]  # of a relative path; None: the text stays without a link, an image goes


def relinked(page: str, target: Target) -> str:
    """A page in Markdown with its relative links and images led to what `target` says."""

    def replaced(found: re.Match[str]) -> str:
        image, text, path, anchor = found[1], found[2], found[3], found[4] or ""
        there = target(path)
        if there is None:
            return "" if image else text
        return f"{image}[{text}]({there}{anchor})"

    return LINK.sub(replaced, page)


def below(address: str) -> Target:
    """Files of the repository at `address`, the folder that serves them by their paths; nowhere if it is ""."""
    return lambda path: f"{address.rstrip('/')}/{path}" if address else None
