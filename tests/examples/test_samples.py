from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from PIL import Image

from examples.emoji.build_dataset import all_pairs, write_full
from examples.emoji.combinations import BACKGROUNDS, held_out_backgrounds
from examples.emoji.compose import canonical, compose_images
from examples.emoji.measures import block_average, psnr
from examples.emoji.samples import SCHEMA
from tests.examples.synthetic_glyphs import synthetic_glyphs
from tests.support.paths import EMOJI, SAMPLE
from tests.support.vqgan_checkpoints import load_vqgan

GLYPHS = synthetic_glyphs()


def tar_samples(path: Path) -> list[dict[str, object]]:
    return list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))


def sample_images(rows: list[dict[str, dict[str, bytes]]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows])


def test_both_forms_hold_every_pair_once_in_the_same_order(tmp_path: Path) -> None:
    assert write_full(GLYPHS, tmp_path, per_shard=25) == len(GLYPHS.keys) * len(BACKGROUNDS)
    tars = [sample for path in sorted(tmp_path.glob("webdataset/*.tar")) for sample in tar_samples(path)]
    rows = [row for path in sorted(tmp_path.glob("parquet/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [sample["__key__"] for sample in tars] == [row["key"] for row in rows]
    assert [sample["png"] for sample in tars] == [row["image"]["bytes"] for row in rows]
    assert [sample["txt"].decode() for sample in tars] == [row["caption"] for row in rows]
    assert len({row["key"] for row in rows}) == 60


def test_a_row_says_what_is_in_its_image(tmp_path: Path) -> None:
    write_full(GLYPHS, tmp_path, per_shard=100)
    rows = pq.read_table(tmp_path / "parquet" / "emoji-00000.parquet").to_pylist()
    pairs, splits = all_pairs(GLYPHS)
    images, _ = compose_images(GLYPHS, pairs, canonical(len(pairs)))
    assert np.array_equal(sample_images(rows), images)
    assert [row["split"] for row in rows] == splits
    row = next(row for row in rows if row["key"] == "1f600-blue")
    assert row["caption"] == "a red disc on a blue background"
    assert row["split"] == ("held_out" if "blue" in held_out_backgrounds("1f600") else "train")


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "again"):
        write_full(GLYPHS, tmp_path / name, per_shard=100)
    for file in ("webdataset/emoji-00000.tar", "parquet/emoji-00000.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_the_shipped_sample_is_the_same_in_both_forms() -> None:
    tars, table = tar_samples(SAMPLE / "emoji-00000.tar"), pq.read_table(SAMPLE / "emoji.parquet")
    rows = table.to_pylist()
    assert table.schema.equals(SCHEMA)
    assert len(rows) == 200
    assert [sample["__key__"] for sample in tars] == [row["key"] for row in rows]
    assert [sample["png"] for sample in tars] == [row["image"]["bytes"] for row in rows]
    assert sample_images(rows).shape == (200, 64, 64, 3)


def test_the_shipped_sample_is_of_pairs_that_training_never_saw() -> None:
    rows = pq.read_table(SAMPLE / "emoji.parquet").to_pylist()
    assert all(row["background"] in held_out_backgrounds(row["glyph"]) for row in rows)
    assert len({row["glyph"] for row in rows}) == len(rows)


def test_the_embedded_model_brings_the_sample_back() -> None:
    rows = pq.read_table(SAMPLE / "emoji.parquet").to_pylist()[:50]
    originals = sample_images(rows)
    model = load_vqgan(EMOJI).for_inference(torch.device("cpu"), torch.float32)
    codes = model.encode(torch.from_numpy(originals))
    outputs = model.decode(codes).numpy()
    assert psnr(originals, outputs).mean() > psnr(originals, block_average(originals, 8)).mean() + 2.5
    assert len(codes.unique()) > 500


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_the_embedded_model_is_complete(name: str) -> None:
    assert (EMOJI / name).stat().st_size > 0
