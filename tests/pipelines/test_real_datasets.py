"""Datasets made by the tools that people use are encoded as they are."""

from __future__ import annotations

import csv
import datetime
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset
from PIL import Image

from tests.support.bad_tokens import GOOD_CODES
from tests.support.images import encoded, scene
from tests.support.img2dataset_layouts import LAYOUTS, Download
from tests.support.run_command import Outcome, decode, encode

JPEG = encoded(scene(48, 32), "JPEG")


def triples(result: Outcome) -> list[tuple[str, object, int]]:
    """Key, caption and number of codes of every row."""
    assert result.code == 0, result.err
    result.check_nothing_lost()
    return [(row["key"], row["caption"], len(row["encoding"])) for row in result.rows()]


def test_tars_of_the_webdataset_writer(tmp_path: Path, tiny_model: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/set-%06d.tar", maxcount=2, verbose=0) as writer:
        for number in range(3):
            writer.write(
                {
                    "__key__": f"sample{number}",
                    "jpg": np.asarray(scene(48, 32)),
                    "txt": f"caption {number}",
                    "json": {"score": number / 2, "tags": ["a", "b"]},
                }
            )

    result = encode(f"{tmp_path}/set-{{000000..000001}}.tar", tmp_path / "out", tiny_model)

    assert triples(result) == [(f"sample{n}", f"caption {n}", 64) for n in range(3)]
    assert [(row["score"], row["tags"]) for row in result.rows()] == [(n / 2, ["a", "b"]) for n in range(3)]


@pytest.mark.parametrize("stored", ["as images", "as paths"])
def test_parquet_of_hugging_face_datasets(stored: str, tmp_path: Path, tiny_model: Path) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    image = scene(48, 32) if stored == "as images" else str(tmp_path / "photo.jpg")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), length=4)),
            "seen": datasets.Value("timestamp[us]"),
        }
    )
    seen = datetime.datetime(2024, 2, 29, 12, 30)
    columns = {"image": [image] * 3, "text": ["one", None, "three"], "label": [0, 1, 0]}
    columns |= {"boxes": [[[0, 0, 1, 1]], [], [[1, 2, 3, 4], [5, 6, 7, 8]]], "seen": [seen] * 3}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")

    result = encode(tmp_path / "train-00000-of-00001.parquet", tmp_path / "out", tiny_model)

    keys = [f"train-00000-of-00001-{row:09d}" for row in range(3)]
    assert triples(result) == list(zip(keys, ["one", None, "three"], [64] * 3, strict=True))
    rows = result.rows()
    assert [row["label"] for row in rows] == [0, 1, 0]
    assert rows[2]["boxes"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert rows[0]["seen"] == seen
    assert [(row["original_width"], row["original_height"]) for row in rows] == [(48, 32)] * 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_img2dataset(layout: str, tmp_path: Path, tiny_model: Path) -> None:
    failed = Download("000000001", "gone", None)
    first = [Download("000000000", "a cat", JPEG), failed, Download("000000002", "a dog", JPEG)]
    LAYOUTS[layout](tmp_path / "in", "00000", first)
    LAYOUTS[layout](tmp_path / "in", "00001", [Download("000010000", "", JPEG)])

    result = encode(tmp_path / "in", tmp_path / "out", tiny_model)

    assert result.code == 0, result.err
    result.check_nothing_lost()
    captions = [(row["key"], row["caption"] or None) for row in result.rows()]
    assert captions == [("000000000", "a cat"), ("000000002", "a dog"), ("000010000", None)]
    assert result.by_reason("filters") == ({"status": 1} if layout == "parquet" else {})
    assert result.total("missing_captions") == 1
    for row in result.rows():
        assert row["url"] == f"https://example.org/{row['key']}.jpg"
        assert row["status"] == "success"
        assert (row["width"], row["original_width"], row["original_height"]) == (256, 1024, 800)


def imagefolder(folder: Path) -> dict[str, str]:
    """Three images, one in a subfolder; their captions by file name."""
    captions = {"0001.png": "one, with a comma", "0002.png": 'two "quoted"', "more/0003.png": "drei über"}
    for name in captions:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(scene(48, 32), "PNG"))
    return captions


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_with_metadata_reads_as_hugging_face_reads_it(
    kind: str, tmp_path: Path, tiny_model: Path
) -> None:
    datasets = pytest.importorskip("datasets")  # not beside the lowest versions: see setup.py
    folder = tmp_path / "in"
    captions = imagefolder(folder)
    rows = [{"file_name": name, "text": text} for name, text in captions.items()]
    if kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, ("file_name", "text"))
        writer.writeheader()
        writer.writerows(rows)
        (folder / "metadata.csv").write_text(out.getvalue())
    theirs = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]

    result = encode(folder, tmp_path / "out", tiny_model)

    keys = [name.removesuffix(".png") for name in captions]
    assert triples(result) == list(zip(keys, captions.values(), [64] * 3, strict=True))
    assert sorted(theirs["text"]) == sorted(row["caption"] for row in result.rows())


def test_tokens_of_other_projects_written_by_pandas(tmp_path: Path, tiny_model: Path) -> None:
    frame = pd.DataFrame({"caption": ["a", "b"], "encoding": [GOOD_CODES, GOOD_CODES[::-1]]})
    frame.to_parquet(tmp_path / "tokens.parquet")
    result = decode(tmp_path / "tokens.parquet", tmp_path / "out", tiny_model)
    assert result.code == 0, result.err
    rows = result.rows()
    assert [row["caption"] for row in rows] == ["a", "b"]
    images = [np.asarray(Image.open(tmp_path / "out" / row["image_path"])) for row in rows]
    assert not np.array_equal(*images)
