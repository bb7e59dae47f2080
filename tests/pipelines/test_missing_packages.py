"""A store whose package is missing is refused before anything is stored: one line that names it, on any runner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from tests.support.run_command import run
from tests.support.small_jobs import dataset

RUNNERS = {
    "here": (),
    "portable": ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"),
    "dataflow": (
        *("--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/tmp"),
        *("--sdk_container_image=i", "--no_auth"),
    ),
}
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, package in PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(_registry, scheme, raising=False)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("scheme", PACKAGES)
@pytest.mark.parametrize("flag", ["--input", "--output", "--model", "--uri_schemes"])
def test_a_store_without_its_package_is_refused(
    tmp_path: Path, tiny_model: Path, flag: str, scheme: str, runner: str
) -> None:
    if runner == "dataflow" and flag != "--output":
        pytest.skip("its input and output are on a store")
    flags: dict[str, object] = {
        "--input": dataset(tmp_path / "in", 1),
        "--output": tmp_path / "out",
        "--model": tiny_model,
        "--device": "cpu",
        flag: scheme if flag == "--uri_schemes" else f"{scheme}://bucket/name",
    }
    words = [str(word) for pair in flags.items() for word in pair]
    refused = run("encode", *words, *RUNNERS[runner])
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1, refused.err
    assert "nstall" in refused.err
    assert PACKAGES[scheme] in refused.err
    assert not (tmp_path / "out").exists()
