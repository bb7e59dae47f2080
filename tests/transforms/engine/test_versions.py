"""A worker whose packages would give other rows than the command's fails its shard and names both versions."""

from __future__ import annotations

import pytest

from transforms.engine import versions


def test_the_versions_of_the_launcher_agree_with_themselves():
    found = versions.versions_here()
    assert {"torch", "pillow", "apache-beam"} <= found.keys()
    assert "+" not in found["torch"]
    versions.check_versions(found)
    versions.check_versions({})


@pytest.mark.parametrize("name", ["torch", "pillow"])
def test_another_version_is_named_beside_the_own_one(name):
    here = versions.versions_here()[name]
    with pytest.raises(versions.OtherVersion, match=f"the worker has {name} {here}, the command has {name} 0.1, "):
        versions.check_versions({**versions.versions_here(), name: "0.1"})


def test_beams_version_moves_no_rows():
    versions.check_versions({**versions.versions_here(), "apache-beam": "0.1"})
