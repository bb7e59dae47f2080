"""What is left of a table's provenance when other programs write it anew: the table in docs/cookbook.md."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from tests.support.paths import SAMPLE


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    words = ["--output", str(tmp_path / "tokens"), "--limit", "4"]
    assert main(["encode", "--input", str(SAMPLE / "emoji-00000.tar"), *words]) == 0
    return tmp_path / "tokens" / "data" / "00000.parquet"


def kept(path: Path) -> bool:
    return b"vqbeam" in (pq.read_schema(path).metadata or {})


def test_pyarrow_keeps_it(tokens: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(tokens), tmp_path / "a.parquet")
    ds.write_dataset(ds.dataset(tokens), tmp_path / "b", format="parquet")
    assert kept(tmp_path / "a.parquet")
    assert kept(next((tmp_path / "b").iterdir()))


def test_pandas_keeps_it_with_the_schema_alone(tokens: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(tokens)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_parquet(tmp_path / "b.parquet", schema=pq.read_schema(tokens))
    assert not kept(tmp_path / "a.parquet")
    assert kept(tmp_path / "b.parquet")


def test_duckdb_drops_it(tokens: Path, tmp_path: Path) -> None:
    duckdb.sql(f"COPY (FROM '{tokens}') TO '{tmp_path}/a.parquet'")
    assert not kept(tmp_path / "a.parquet")


def test_datasets_drops_it(tokens: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_parquet(str(tokens), cache_dir=str(tmp_path / "c")).to_parquet(str(tmp_path / "a.parquet"))
    assert not kept(tmp_path / "a.parquet")
