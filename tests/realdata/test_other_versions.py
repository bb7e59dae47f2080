"""A job that another version of Pillow began: refused with what to install, or finished under both."""

from __future__ import annotations

import json
from pathlib import Path

import PIL
import pyarrow.parquet as pq
import pytest

from tests.support.images import scene
from tests.support.run_command import Outcome, encode


def pillow_of(job: Outcome, shard: int) -> object:
    metadata = pq.read_schema(Path(job.output) / "data" / f"{shard:05d}.parquet").metadata
    return json.loads(metadata[b"vqbeam"])["preprocessing"]["pillow"]


def test_both_versions_are_named(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcd":
        scene().save(tmp_path / "in" / f"{name}.png")
    out, flags = tmp_path / "out", ("--rows_per_shard", "2")
    first = encode(tmp_path / "in", out, tiny_model, *flags)
    assert first.code == 0, first.err
    here = PIL.__version__
    for path in ("data/00001.parquet", "_vqbeam/stats/00001.json", "_SUCCESS"):
        (out / path).unlink()
    monkeypatch.setattr(PIL, "__version__", "99.1")
    refused = encode(tmp_path / "in", out, tiny_model, *flags)
    assert refused.code == 2
    for part in (f"begun with pillow {here}", "here is pillow 99.1", f"pip install 'pillow=={here}'", "--allow_other"):
        assert part in refused.err
    assert "same options" not in refused.err
    others = encode(tmp_path / "in", out, tiny_model, *flags, "--resize", "pad")
    assert "preprocessing.resize" in others.err
    assert "pillow" not in others.err
    assert not (out / "data" / "00001.parquet").exists()
    finished = encode(tmp_path / "in", out, tiny_model, *flags, "--allow_other_versions")
    assert finished.code == 0, finished.err
    assert pillow_of(finished, 0) == here
    assert pillow_of(finished, 1) == [here, "99.1"]
