"""Makes vqbeam's `models` and `transforms` importable as `vqbeam.models` and `vqbeam.transforms`.

A project may have folders of these names. Under their full names vqbeam's modules do not collide with them: in a module
imported as `vqbeam.transforms.images`, an absolute import of `models` or `transforms` gives `vqbeam.models` or
`vqbeam.transforms`. `python -m pipelines` and `from transforms import EncodeImages` import the same files by their
short names instead; one program uses either, since classes imported under two names are two classes.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

HOME = Path(__file__).resolve().parents[1]
NAMES = ("models", "transforms")
PREFIX = f"{__package__}."


def is_own(name: str) -> bool:
    """Whether a module, named from the top, is one of `NAMES` or inside one."""
    return name.partition(".")[0] in NAMES


def import_own(
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` of our modules: an absolute import of `NAMES` gives the module under its full name."""
    if level or not is_own(name):
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    module = importlib.import_module(PREFIX + name)
    if fromlist:
        for part in fromlist:
            if not hasattr(module, part) and hasattr(module, "__path__"):
                importlib.import_module(f"{module.__name__}.{part}")
        return module
    return sys.modules[PREFIX + name.partition(".")[0]]


BUILTINS = {**vars(builtins), "__import__": import_own}


class OwnLoader(importlib.machinery.SourceFileLoader):
    """Runs a module with `import_own` for `__import__`; compiled files are shared with the short names."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = BUILTINS
        super().exec_module(module)


class OwnFinder(importlib.abc.MetaPathFinder):
    """Finds `vqbeam.models...` and `vqbeam.transforms...` beside this package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not (fullname.startswith(PREFIX) and is_own(fullname.removeprefix(PREFIX))):
            return None
        folder = HOME.joinpath(*fullname.split(".")[1:-1])
        spec = importlib.machinery.PathFinder.find_spec(fullname, [str(folder)])
        if spec is not None and spec.origin is not None:
            spec.loader = OwnLoader(fullname, spec.origin)
        return spec


def install() -> None:
    """Adds the finder, once."""
    if not any(isinstance(finder, OwnFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnFinder())
