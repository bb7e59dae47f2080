"""Makes sure that `models` and `transforms` are those that came with `pipelines`, not folders of the user.

Runs before all else, so it imports no other module of the project.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
SIBLINGS = ("models", "transforms")


def shadowed_sibling() -> str | None:
    """What shadows a sibling and what to do about it; None if `import` finds the siblings.

    `python -m pipelines` puts the working folder first on the path, which the `vqbeam` command does not: if
    that shadows a sibling, the working folder is taken off the path.
    """
    if _first_shadow() is not None:
        here = Path.cwd().resolve()
        if here != HOME:
            sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != here]
            importlib.invalidate_caches()
    shadow = _first_shadow()
    if shadow is None:
        return None
    name, found = shadow
    return (
        f"{found} is imported as {name!r} instead of vqbeam's own {HOME / name}. "
        f"Take {found.parent} off PYTHONPATH, or rename {found}, or install vqbeam into a separate environment."
    )


def _first_shadow() -> tuple[str, Path] | None:
    for name in SIBLINGS:
        spec = importlib.util.find_spec(name)
        locations = [name] if spec is None else list(spec.submodule_search_locations or [spec.origin or name])
        found = Path(locations[0]).resolve()
        if found != HOME / name:
            return name, found
    return None
