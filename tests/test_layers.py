"""Imports go downwards only. The test reads the sources, so an import inside a function counts as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("models", "transforms", "pipelines", "vqbeam")
# From the bottom up. A module imports only modules of lines below its own; rooms in one line do not import each other.
# A name covers everything in that package; `__init__` is listed by itself if the package's modules have other lines.
LAYERS = (
    ("models.errors", "models.processor", "models.whereabouts"),
    (
        "models.devices",
        "models.machine_code",
        "models.threads",
        "models.uniforms",
        "models.quantiser",
    ),
    ("models.team",),
    ("models.winograd",),
    ("models.image_tokenizer", "models.tokenizer_network"),
    ("models.weights",),
    ("models.vqgan", "models.bart", "models.clip"),
    (
        "models.llamagen",
        "models.chameleon",
        "models.diffusers",
        "models.emu3",
        "models.showo",
        "models.ibq",
        "models.maskgit",
        "models.own_class",
    ),
    ("models.find",),
    ("models.__init__",),
    ("transforms.errors", "transforms.compiled_resampling"),
    ("transforms.resampling",),
    (
        "transforms.colour_profiles",
        "transforms.damaged_images",
        "transforms.image_formats",
        "transforms.local_files",
        "transforms.object_stores",
        "transforms.own_preprocessing",
        "transforms.sequences",
        "transforms.source_files",
        "transforms.target_sizes",
    ),
    ("transforms.image_options",),
    ("transforms.storage", "transforms.batch", "transforms.images"),
    ("transforms.views",),
    ("transforms.ledger",),
    ("transforms.inputs",),
    ("transforms.outputs",),
    ("transforms.work",),
    ("transforms.engine",),
    ("transforms.training",),
    ("transforms.inference", "transforms.report"),
    ("transforms.__init__",),
    ("pipelines",),
    ("vqbeam",),
)
KNOWN: Mapping[tuple[str, str], str] = {}  # imports that are still upward, and why
WITHOUT_TORCH = ("transforms.ledger", "transforms.inputs", "transforms.outputs")

Graph = Mapping[str, set[str]]


def test_no_module_imports_upwards() -> None:
    assert upward_imports(project(), LAYERS) == []


def test_no_two_modules_import_each_other() -> None:
    assert cycle(project()) == []


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_planning_and_the_ledger_import_no_torch(room: str) -> None:
    graph = read_imports(ROOT, PACKAGES, at_import_only=True)
    assert [name for name in graph if in_room(name, room) and "torch" in reachable(graph, name)] == []


def test_known_imports_are_still_there() -> None:
    graph = read_imports(ROOT, PACKAGES)
    found = {pair for pair in KNOWN for name in graph if in_room(name, pair[0]) and pair[1] in graph[name]}
    assert KNOWN.keys() - found == set(), "mended: take these out of KNOWN"


def test_every_package_of_the_project_has_modules_here() -> None:
    assert {name.partition(".")[0] for name in project()} >= {"models", "transforms", "pipelines"}


# The checker itself, on made-up trees.

TREE = {
    "low/__init__.py": "",
    "low/base.py": "import json\n",
    "low/a/__init__.py": "from low.a.one import f\n",
    "low/a/one.py": "from low.base import x\n",
    "low/b.py": "from low import base\n",
    "high/__init__.py": "",
    "high/top.py": "def run():\n    import low.b\n",
}
ORDER = (("low.base",), ("low.a", "low.b"), ("low.__init__",), ("high",))


def made_up(folder: Path, **changes: str) -> Graph:
    """`TREE` with files replaced: `low__base="..."` is `low/base.py`."""
    for name, text in {**TREE, **{f"{key.replace('__', '/')}.py": text for key, text in changes.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_imports(folder, ("low", "high"))


def test_imports_that_go_down_pass(tmp_path: Path) -> None:
    graph = made_up(tmp_path)
    assert graph["low.b"] == {"low.base"}
    assert upward_imports(graph, ORDER) == []
    assert cycle(graph) == []


@pytest.mark.parametrize(
    "text",
    [
        "from high import top",
        "from high.top import run",
        "import high.top",
        "def f():\n    from high.top import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import high.top",
        "from ..high import top",
    ],
)
def test_a_new_upward_import_is_found_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert upward_imports(made_up(tmp_path, low__b=text), ORDER) == ["low.b imports high.top, which is above it"]


def test_rooms_in_one_line_do_not_import_each_other(tmp_path: Path) -> None:
    graph = made_up(tmp_path, low__b="from low.a.one import f")
    assert upward_imports(graph, ORDER) == ["low.b imports low.a.one, which is beside it"]


def test_a_module_does_not_import_its_own_package_if_that_is_above(tmp_path: Path) -> None:
    graph = made_up(tmp_path, low__b="from low import anything")
    assert upward_imports(graph, ORDER) == ["low.b imports low.__init__, which is above it"]


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    assert upward_imports(made_up(tmp_path, low__new=""), ORDER) == ["low.new is in no line of LAYERS"]


def test_modules_of_one_room_that_import_each_other_are_found(tmp_path: Path) -> None:
    graph = made_up(tmp_path, low__a__one="from low.a import two", low__a__two="def f():\n    from low.a import one")
    assert set(cycle(graph)) == {"low.a.one", "low.a.two"}


def test_a_circle_through_the_package_of_an_imported_module_is_found(tmp_path: Path) -> None:
    """`low.b` imports only `low.a.two`, but that runs `low/a/__init__.py`, which comes back to `low.b`."""
    graph = made_up(tmp_path, low__b="from low.a.two import f", low__a__one="from low import b", low__a__two="")
    assert set(cycle(graph)) == {"low.b", "low.a.__init__", "low.a.one"}


def test_an_import_that_waits_for_a_call_brings_no_torch(tmp_path: Path) -> None:
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch\n"
    made_up(tmp_path, low__base=lazy, high__top="import low.b", low__a__one="from torch import nn")
    graph = read_imports(tmp_path, ("low", "high"), at_import_only=True)
    assert "torch" not in reachable(graph, "high.top")
    assert "torch" in reachable(graph, "low.a.one")


def project() -> Graph:
    """The imports of the project's modules without those in `KNOWN`."""
    graph = read_imports(ROOT, PACKAGES)
    for name, found in graph.items():
        for room, other in KNOWN:
            if in_room(name, room):
                found.discard(other)
    return graph


def read_imports(root: Path, packages: Sequence[str], *, at_import_only: bool = False) -> Graph:
    """The modules of `packages` and what each imports: modules of these packages, and other packages by their name.

    With `at_import_only`, only what importing a module imports at once, its parent packages included.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    graph = {}
    for name, path in files.items():
        named = set(_named(ast.parse(path.read_text(encoding="utf-8")), name, at_import_only))
        found = {_module(full, files, packages) for full in named}
        if at_import_only:
            found |= _packages(name) & files.keys()
        graph[name] = found - {name}
    return graph


def _named(tree: ast.AST, module: str, at_import_only: bool) -> Iterator[str]:
    """Full names in the import statements, `a.b.c` for `from a.b import c`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            base = [*parent, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif not (at_import_only and _waits(node)):
            yield from _named(node, module, at_import_only)


def _waits(node: ast.AST) -> bool:
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _packages(module: str) -> set[str]:
    """The `__init__` modules of the packages that a module is in."""
    parts = module.split(".")
    return {".".join([*parts[:end], "__init__"]) for end in range(1, len(parts))}


def _module(full: str, files: Mapping[str, Path], packages: Sequence[str]) -> str:
    """The module that defines a full name."""
    parts = full.split(".")
    if parts[0] not in packages:
        return parts[0]
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        for module in (name, f"{name}.__init__"):
            if module in files:
                return module
    return full


def in_room(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def upward_imports(graph: Graph, layers: Sequence[Sequence[str]]) -> list[str]:
    """A sentence for each import that goes upwards or sideways, and for each module without a line."""
    height = {room: number for number, line in enumerate(layers) for room in line}
    rooms = {name: max((room for room in height if in_room(name, room)), key=len, default=None) for name in graph}
    wrong = [f"{name} is in no line of LAYERS" for name, room in rooms.items() if room is None]
    for name, imported in graph.items():
        for other in sorted(imported & graph.keys()):
            mine, theirs = rooms[name], rooms[other]
            if mine is None or theirs is None or mine == theirs or height[theirs] < height[mine]:
                continue
            where = "above" if height[theirs] > height[mine] else "beside"
            wrong.append(f"{name} imports {other}, which is {where} it")
    return wrong


def cycle(graph: Graph) -> list[str]:
    """Modules that import each other in a circle; empty if there are none.

    Importing a module runs its packages first, unless they are running already because the importer is inside.
    """
    run = {
        name: found.union(*(_packages(other) - _packages(name) for other in found)) & graph.keys()
        for name, found in graph.items()
    }
    try:
        TopologicalSorter(run).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def reachable(graph: Graph, module: str) -> set[str]:
    """Everything that importing `module` imports."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
