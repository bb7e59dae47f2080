"""What cannot work is refused before there is a plan, exit code 2: a backend that is missing, codes of another grid."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.bad_tokens import GOOD_CODES
from tests.support.make_inputs import GOOD, files
from tests.support.run_command import SMALL, decode, encode, run

OTHER_GRID = [0] * 256


def tokens(path: Path, cells: list[Any], kind: pa.DataType | None = None) -> Path:
    pq.write_table(pa.table({"encoding": pa.array(cells, kind or pa.list_(pa.int32()))}), path)
    return path


@pytest.mark.parametrize("kind", [pa.list_(pa.int16()), pa.list_(pa.int32(), 256)])
def test_codes_of_another_grid_are_refused(tmp_path: Path, tiny_model: Path, kind: pa.DataType) -> None:
    source = tokens(tmp_path / "t.parquet", [OTHER_GRID] * 40, kind)
    for command in (("decode",), ("vary", "--method", "codes")):
        result = run(*command, "--input", source, "--model", tiny_model, *SMALL, output=tmp_path / "out")
        result.check_refused("--model", "256 codes", "grid of this model has 64")


def test_a_second_file_of_another_grid_costs_its_rows_only(tmp_path: Path, tiny_model: Path) -> None:
    tokens(tmp_path / "a.parquet", [OTHER_GRID, GOOD_CODES])
    tokens(tmp_path / "b.parquet", [OTHER_GRID])
    result = decode(tmp_path / "*.parquet", tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    assert len(result.rows()) == 1
    assert result.by_reason("errors") == {"wrong_code_count": 2}


def test_codes_that_begin_with_nulls_are_looked_for_in_the_next_file(tmp_path: Path, tiny_model: Path) -> None:
    tokens(tmp_path / "a.parquet", [None])
    tokens(tmp_path / "b.parquet", [OTHER_GRID])
    decode(tmp_path / "*.parquet", tmp_path / "out", tiny_model).check_refused("b.parquet", "256 codes")


@pytest.mark.skipif(importlib.util.find_spec("vqgan_jax") is not None, reason="vqgan-jax is installed")
def test_a_backend_that_is_missing_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    files({"in/a.jpg": GOOD})(tmp_path)
    result = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--backend", "vqgan-jax")
    result.check_refused("backend vqgan-jax", "Install it with: pip install")
