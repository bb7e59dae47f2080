"""The packages whose versions decide what comes out: a worker elsewhere must have those of the command."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from transforms.errors import WorkerUnfit

DECIDING = ("vqbeam", "torch", "pillow")
COMPARED = (*DECIDING, "apache-beam")


class OtherVersion(WorkerUnfit):
    """The worker would make other rows than the rest of the job."""

    advised = True


def versions_here() -> dict[str, str]:
    """The versions of the packages that are compared, of those that are installed. CPU and CUDA builds are one."""
    found = {}
    for name in COMPARED:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def check_versions(planned: Mapping[str, str]) -> None:
    """Raise `OtherVersion` if a package that decides output is another one here than where the job was launched.

    An empty `planned` agrees with any.
    """
    here = versions_here()
    others = [name for name in DECIDING if name in planned and here.get(name) != planned[name]]
    if others:
        there, mine = (
            ", ".join(f"{name} {versions.get(name, 'missing')}" for name in others) for versions in (planned, here)
        )
        raise OtherVersion(
            f"the worker has {mine}, the command has {there}, which may give other rows: install the same for both"
        )
