"""What `vqbeam export` refuses: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.exports import ROWS, export, write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tokens") / "in", list(range(ROWS)), 34)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", "train=0.9,val=0.2"), "the shares add up to 1.1, not to 1"),
        (("--split", "train=1,val=0"), "val would be empty"),
        (("--split", "train"), "expected NAME=SHARE"),
        (("--split", "train=0.5,train=0.5"), "train is there twice"),
        (("--split", "a-b=0.5,a_b=0.5"), "a-b and another differ by a hyphen"),
        (("--split", "train=0.5,val=0.4"), "the shares add up to 0.9, not to 1"),
        (("--split", "a/b=1"), "cannot be the name of a split"),
        (("--split", "train=0.9999999,val=0.0000001"), "val would get no row"),
        (("--dedup", "nothing"), "has no column nothing; it has key, caption, encoding, site"),
        (("--dedup", "site", "--columns"), "site is not among columns"),
        (("--code_column", "caption"), "column caption holds string, and no lists of codes"),
        (("--code_column", "codes"), "has no column of codes; it has key, caption, encoding, site"),
    ],
)
def test_what_cannot_be_done_is_refused(flags: tuple[str, ...], message: str, source: Path, tmp_path: Path) -> None:
    result = export(source, tmp_path / "out", *flags)
    assert result.code == 2, result.err
    assert message in result.err
    assert not (tmp_path / "out" / "data").exists()


def test_tables_with_other_grids_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(range(5)), 5)
    pq.write_table(
        pa.table({"key": ["a"], "encoding": pa.array([[1, 2]], pa.list_(pa.uint16(), 2))}), source / "z.parquet"
    )
    export(source, tmp_path / "out").check_refused(
        "000.parquet has 6 codes a row and", "z.parquet 2: tables of one grid"
    )


def tokens(folder: Path, name: str, codes: pa.Array, made_by: Mapping[str, Any] | None = None, **more: Any) -> Path:
    """A table in a folder, with the provenance of a job."""
    folder.mkdir(exist_ok=True)
    keys = [f"{name}{number}" for number in range(len(codes))]
    table = pa.table({"key": keys, "encoding": codes, **more})
    if made_by:
        table = table.replace_schema_metadata({"vqbeam": json.dumps(made_by)})
    pq.write_table(table, folder / f"{name}.parquet")
    return folder


FOUR = pa.list_(pa.uint16(), 4)


def test_tables_of_two_codebooks_are_refused(tmp_path: Path) -> None:
    codes = pa.array([[1, 2, 3, 4]], FOUR)
    for name, codebook in (("a", "1" * 64), ("b", "2" * 64)):
        tokens(tmp_path / "in", name, codes, {"codebook_id": codebook, "codebook_size": 16, "grid": 2})
    export(tmp_path / "in", tmp_path / "out").check_refused(
        "a.parquet and", "b.parquet were made with other models (codebooks 111111111111 and 222222222222)"
    )


def test_codes_beyond_the_codebook_cost_their_rows_or_the_export(tmp_path: Path) -> None:
    made_by = {"codebook_id": "1" * 64, "codebook_size": 16, "grid": 2}
    good = tokens(tmp_path / "few", "a", pa.array([[1, 2, 3, number] for number in range(12, 17)], FOUR), made_by)
    few = export(good, tmp_path / "few_out", "--max_error_rate", 0.5)
    assert few.code == 0, few.err
    assert "rows       5 read = 4 written + 1 rejected + 0 filtered" in few.out
    assert "1 code_out_of_range" in few.out
    bad = tokens(tmp_path / "all", "a", pa.array([[16, 17, 18, 19]] * 5, FOUR), made_by)
    every = export(bad, tmp_path / "all_out")
    assert every.code == 1
    assert "rejected   5 code_out_of_range" in every.out
    assert not (tmp_path / "all_out" / "data").exists()


def test_a_table_of_several_grids_is_refused_though_they_have_as_many_codes(tmp_path: Path) -> None:
    codes = pa.array([[1, 2, 3, 4, 5, 6]] * 2, pa.list_(pa.uint16()))
    sides = {"grid_h": pa.array([2, 3], pa.int32()), "grid_w": pa.array([3, 2], pa.int32())}
    export(tokens(tmp_path / "in", "a", codes, **sides), tmp_path / "out").check_refused(
        "a.parquet has grids that differ by row (grid_h 2 to 3)", "tables of one grid go into an export"
    )
    same = {"grid_h": pa.array([2, 2], pa.int32()), "grid_w": pa.array([3, 3], pa.int32())}
    assert export(tokens(tmp_path / "same", "a", codes, **same), tmp_path / "out").code == 0


SIX = [[1, 2, 3, 4, 5, 6]] * 2


def sides(height: int, width: int) -> dict[str, pa.Array]:
    return {"grid_h": pa.array([height] * 2, pa.int32()), "grid_w": pa.array([width] * 2, pa.int32())}


@pytest.mark.parametrize("kind", [pa.list_(pa.uint16()), pa.list_(pa.uint16(), 6)])
def test_tables_of_two_grids_with_as_many_codes_are_refused(kind: pa.DataType, tmp_path: Path) -> None:
    codes = pa.array(SIX, kind)
    tokens(tmp_path / "in", "a", codes, **sides(2, 3))
    export(tokens(tmp_path / "in", "b", codes, **sides(3, 2)), tmp_path / "out").check_refused(
        "a.parquet has grids of 2 x 3 codes and", "b.parquet of 3 x 2: tables of one grid go into an export"
    )
    mixed = {name: pa.array([2, 3], pa.int32()) for name in ("grid_h", "grid_w")}
    tokens(tmp_path / "mixed", "a", codes, **mixed)
    export(tmp_path / "mixed", tmp_path / "out").check_refused("a.parquet has grids that differ by row (grid_h 2 to 3)")
    table = pq.read_table(tmp_path / "mixed" / "a.parquet")
    pq.write_table(table, tmp_path / "mixed" / "a.parquet", write_statistics=False)
    export(tmp_path / "mixed", tmp_path / "out").check_refused("a.parquet has grids that differ by row (grid_h 2 to 3)")


def test_a_strip_and_a_square_of_as_many_codes_are_refused(tmp_path: Path) -> None:
    codes = pa.array([[1, 2, 3, 4]] * 2, FOUR)
    tokens(tmp_path / "in", "a", codes, {"codebook_id": "1" * 64, "codebook_size": 16, "grid": 2})
    export(tokens(tmp_path / "in", "b", codes, **sides(1, 4)), tmp_path / "out").check_refused(
        "a.parquet has grids of 2 x 2 codes and", "b.parquet of 1 x 4: tables of one grid go into an export"
    )


def test_a_grid_that_is_no_square_is_kept_or_refused(tmp_path: Path) -> None:
    source = tokens(tmp_path / "in", "a", pa.array(SIX, pa.list_(pa.uint16())), **sides(2, 3))
    export(source, tmp_path / "out", "--columns").check_refused(
        "a.parquet has grids of 2 x 3 codes, which grid_h and grid_w say: keep grid_h and grid_w, by name"
    )
    kept = export(source, tmp_path / "out", "--columns", "grid_h", "grid_w")
    assert kept.code == 0, kept.err
    assert [(row["grid_h"], row["grid_w"]) for row in kept.rows()] == [(2, 3)] * 2


def test_a_folder_without_tables_of_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    export(tmp_path / "in", tmp_path / "out").check_refused(f"{tmp_path}/in")
    pq.write_table(pa.table({"key": ["a"], "text": ["b"]}), tmp_path / "in" / "b.parquet")
    export(tmp_path / "in", tmp_path / "out").check_refused("b.parquet has no column of codes; it has key, text")
    (tmp_path / "in" / "b.parquet").write_bytes(b"no table")
    export(tmp_path / "in", tmp_path / "out").check_refused("b.parquet")
