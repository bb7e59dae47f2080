"""What `vqbeam export` writes in each layout, read as its own readers read it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

import pipelines.export
from tests.support.exports import ROWS, SPLIT, export, export_words, hashes, row, write
from tests.support.run_command import run
from transforms.ledger.commit import ShardTransaction

LAYOUTS = ("npy", "mds", "memmap")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sorted tables even of few rows."""
    monkeypatch.setattr(pipelines.export, "SORTED_ROWS", 40)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tokens") / "in", list(range(ROWS)), 34)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[str, Path]:
    """The same rows in each layout."""
    home = tmp_path_factory.mktemp("export")
    for layout in ("parquet", *LAYOUTS):
        result = export(source, home / layout, "--layout", layout, "--dedup", "site")
        assert result.code == 0, result.err
    return {layout: home / layout for layout in ("parquet", *LAYOUTS)}


def expected_rows(exported: dict[str, Path]) -> list[dict[str, Any]]:
    rows = [one for path in sorted((exported["parquet"] / "data").iterdir()) for one in pq.read_table(path).to_pylist()]
    assert len(rows) == 19
    return rows


def test_llamagen_finds_the_codes_and_the_captions_of_each_line(exported: dict[str, Path]) -> None:
    """As its scripts do: the folder of codes is the name of the JSON lines, the file the number of the line."""
    home, expected = exported["npy"] / "codes", iter(expected_rows(exported))
    for name in sorted(os.listdir(home)):
        if name.endswith(".jsonl"):
            for number, line in enumerate((home / name).read_text().splitlines()):
                found, wanted = json.loads(line), next(expected)
                codes = np.load(home / name.split(".")[0] / f"{number}.npy")
                assert (codes.dtype, codes.shape) == (np.int64, (1, 6))
                assert codes[0].tolist() == wanted["encoding"]
                assert found == {"image_path": wanted["key"], "text": [wanted["caption"] or ""]}
    assert next(expected, None) is None


def read_mds(folder: Path) -> list[dict[str, Any]]:
    """By the format alone: offsets, then the sizes of columns without a fixed one, then the values."""
    rows = []
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    for shard in index["shards"]:
        path = folder / shard["raw_data"]["basename"]
        data = path.read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        count = int(np.frombuffer(data, "<u4", 1)[0])
        assert count == shard["samples"]
        offsets = np.frombuffer(data, "<u4", count + 1, 4)
        about = json.loads(data[4 * (count + 2) : offsets[0]])
        assert about == {name: shard[name] for name in about}
        for begin, end in pairwise(offsets):
            sample, values, at = data[begin:end], {}, 0
            sizes = list(shard["column_sizes"])
            for number, size in enumerate(sizes):
                if size is None:
                    sizes[number] = int(np.frombuffer(sample, "<u4", 1, at)[0])
                    at += 4
            for name, kind, size in zip(shard["column_names"], shard["column_encodings"], sizes, strict=True):
                values[name] = decoded(kind, sample[at : at + size])
                at += size
            assert at == len(sample)
            rows.append(values)
    return rows


def decoded(kind: str, value: bytes) -> Any:
    if kind.startswith("ndarray:"):
        return np.frombuffer(value, kind.split(":")[1]).tolist()
    return json.loads(value) if kind == "json" else value.decode()


def as_mds(one: dict[str, Any]) -> dict[str, Any]:
    others = {name: one[name] for name in ("site", "duplicates")}
    return {"key": one["key"], "caption": one["caption"] or "", "encoding": one["encoding"], "json": others}


def test_shards_of_mds_are_as_the_format_says(exported: dict[str, Path]) -> None:
    assert read_mds(exported["mds"]) == [as_mds(one) for one in expected_rows(exported)]


def test_the_card_is_for_what_datasets_reads(exported: dict[str, Path]) -> None:
    assert {layout: (home / "README.md").exists() for layout, home in exported.items()} == {
        "parquet": True,
        "npy": True,
        "memmap": True,
        "mds": False,
    }


READ_MDS = """
import json, sys
from streaming import StreamingDataset
local, remote, split = (word or None for word in sys.argv[1:])
rows = StreamingDataset(local=local, remote=remote, split=split, shuffle=False, batch_size=1)
print(json.dumps([dict(rows[n], encoding=rows[n]["encoding"].tolist()) for n in range(len(rows))]))
"""


@pytest.mark.slow
def test_mosaicml_streaming_reads_the_shards(exported: dict[str, Path], source: Path, tmp_path: Path) -> None:
    """With 0.13.0, which asks for an older transformers and numpy than vqbeam: so in an environment of its own."""
    python = os.environ.get("VQBEAM_STREAMING_PYTHON")
    if not python:
        pytest.skip("VQBEAM_STREAMING_PYTHON does not name a Python with mosaicml-streaming 0.13.0")
    expected = [as_mds(one) for one in expected_rows(exported)]
    assert export(source, tmp_path / "split", "--layout", "mds", *SPLIT).code == 0
    both = {split: read_mds(tmp_path / "split" / split) for split in ("train", "val")}
    for local, remote, split, wanted in (
        (exported["mds"], "", "", expected),
        (tmp_path / "copy", exported["mds"], "", expected),
        (tmp_path / "split", "", "train", both["train"]),
        (tmp_path / "other", tmp_path / "split", "val", both["val"]),
    ):
        read = subprocess.run([python, "-c", READ_MDS, local, remote, split], capture_output=True, text=True)
        assert read.returncode == 0, read.stderr
        assert json.loads(read.stdout.splitlines()[-1]) == wanted


def test_flat_files_are_windows_of_codes_and_rows_of_the_table(exported: dict[str, Path]) -> None:
    home, expected = exported["memmap"], expected_rows(exported)
    index = json.loads((home / "index.json").read_text())
    assert (index["dtype"], index["codes_per_row"], index["rows"]) == ("uint16", 6, len(expected))
    window = index["codes_per_row"] - 1  # inputs and targets are one code apart, and both are of one row
    done = 0
    for number, file in enumerate(index["files"]):
        flat = np.memmap(home / file["path"], dtype=index["dtype"], mode="r")
        table = pq.read_table(home / "data" / f"{number:05d}.parquet").to_pylist()
        assert len(flat) == file["rows"] * 6
        for one, start in zip(table, range(0, len(flat), 6), strict=True):
            inputs, targets = flat[start : start + window], flat[start + 1 : start + 1 + window]
            wanted = expected[done]
            assert [*inputs.tolist(), int(targets[-1])] == wanted["encoding"]
            assert one == {**{k: v for k, v in wanted.items() if k != "encoding"}, "code_path": file["path"]}
            done += 1
    assert done == len(expected)


@pytest.mark.parametrize(("most", "kind"), [(65_535, "uint16"), (65_536, "uint32")])
def test_flat_codes_are_as_wide_as_the_codebook_asks(most: int, kind: str, tmp_path: Path) -> None:
    table = pa.table({"key": ["a"], "encoding": pa.array([[most, 1]], pa.list_(pa.int32(), 2))})
    table = table.replace_schema_metadata({"vqbeam": json.dumps({"codebook_size": most + 1, "grid": 1})})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    assert export(tmp_path / "in", tmp_path / "out", "--layout", "memmap").code == 0
    assert json.loads((tmp_path / "out" / "index.json").read_text())["dtype"] == kind
    assert np.fromfile(tmp_path / "out" / "codes" / "00000" / "codes.bin", kind).tolist() == [most, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_verify_knows_the_files_and_sees_what_is_missing_or_changed(
    layout: str, source: Path, tmp_path: Path, exported: dict[str, Path]
) -> None:
    output = tmp_path / "out"
    assert export(source, output, "--layout", layout).code == 0
    assert run("verify", output).code == 0
    before = hashes(output)
    held = {"npy": "codes/00001/3.npy", "mds": "mds/00001.mds", "memmap": "codes/00001/codes.bin"}[layout]
    data = (output / held).read_bytes()
    (output / held).write_bytes(data[:-1] + b"x")
    result = run("verify", output)
    assert result.code == 1
    assert f"{held} has another checksum" in result.out
    assert run("verify", output, "--repair").code == 1
    assert not (output / held).exists()
    assert export(source, output, "--layout", layout).code == 0
    assert hashes(output) == before


class Killed(RuntimeError):
    """Ends a shard."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_that_ended_between_files_is_finished_with_the_same_bytes(
    layout: str, source: Path, tmp_path: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ShardTransaction.commit

    def ends(self: ShardTransaction, *rest: Any) -> Any:
        if self.main.files or self.main.suffix == "mds":  # the codes of npy and memmap are there, the table is not
            raise Killed
        return commit(self, *rest)

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ShardTransaction, "commit", ends)
        assert export(source, output, "--layout", layout, "--dedup", "site").code == 1
    assert not (output / "index.json").exists()
    if layout != "mds":
        held = next(path for path in sorted((output / "codes").rglob("*")) if path.is_file())
        held.write_bytes(b"half")
    again = export(source, output, "--layout", layout, "--dedup", "site")
    assert again.code == 0, again.err
    assert hashes(output) == hashes(exported[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bucket_gets_the_same_files(
    layout: str, source: Path, exported: dict[str, Path], gcs_bucket: str, tmp_path: Path
) -> None:
    output = f"{gcs_bucket}/{tmp_path.name}"
    result = run(*export_words(source), "--layout", layout, "--dedup", "site", output=output)
    assert result.code == 0, result.err
    store = fsspec.filesystem("gs")
    names = [name.split(f"{tmp_path.name}/", 1)[1] for name in store.find(output)]
    stored = {name: store.cat(f"{output}/{name}") for name in names if not name.startswith("_vqbeam")}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in stored.items()} == hashes(exported[layout])
    assert run("verify", output).code == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_layout_takes_the_place_of_all_files(layout: str, source: Path, tmp_path: Path) -> None:
    assert export(source, tmp_path / "out", "--layout", layout).code == 0
    assert export(source, tmp_path / "out", "--layout", "webdataset", "--overwrite").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "_SUCCESS", "_vqbeam", "tars"]


def test_an_index_of_the_users_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.json").write_text("{}")
    result = export(source, tmp_path / "out", "--layout", "mds")
    assert result.code == 2
    assert "index.json was not written by vqbeam, and is in the way" in result.err
    assert (tmp_path / "out" / "index.json").read_text() == "{}"


def test_a_list_of_captions_is_kept_whole_for_llamagen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    captions = pa.array([["a", "b"], None], pa.list_(pa.string()))
    codes = pa.array([[1, 2]] * 2, pa.list_(pa.uint16(), 2))
    pq.write_table(pa.table({"key": ["x", "y"], "caption": captions, "encoding": codes}), tmp_path / "in" / "a.parquet")
    assert export(tmp_path / "in", tmp_path / "out", "--layout", "npy").code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "codes" / "00000.jsonl").read_text().splitlines()]
    assert {line["image_path"]: line["text"] for line in lines} == {"x": ["a", "b"], "y": [""]}


def test_tars_are_read_by_webdataset_with_every_key(source: Path, tmp_path: Path) -> None:
    assert export(source, tmp_path / "out", "--layout", "webdataset").code == 0
    tars = sorted(str(path) for path in (tmp_path / "out" / "tars").iterdir())
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert len(samples) == ROWS
    for sample in samples:
        expected = row(int(sample["json"]["key"].removeprefix("img.")))
        assert sample["npy"].dtype == np.uint16
        assert sample["npy"].tolist() == expected["encoding"]
        assert sample["txt"] == (expected["caption"] or "")
        assert sample["json"]["site"] == expected["site"]
    assert {sample["json"]["key"] for sample in samples} == {f"img.{number}" for number in range(ROWS)}
