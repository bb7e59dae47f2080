"""Commands with everything on Google Cloud Storage and S3, emulated."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from tests.support.cloud_tables import KEYS, TABLES, TWO_ROWS
from tests.support.faulty_store import FaultyStore, Request
from tests.support.make_inputs import GOOD, image_table
from tests.support.run_command import SMALL, decode, encode, run
from transforms import storage
from transforms.engine import beam
from transforms.ledger import totals


def test_a_dataset_in_a_bucket_gives_the_same_bytes_as_on_disk(folder: str, tmp_path: Path, tiny_model: Path) -> None:
    local = tmp_path / "in"
    local.mkdir()
    for name, data in TABLES.items():
        (local / name).write_bytes(data)
    on_disk = encode(local, tmp_path / "out", tiny_model, *TWO_ROWS)

    result = encode(f"{folder}/in/{{a,b,c}}.parquet", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert result.keys() == KEYS
    empty = "_vqbeam/attempts"  # a folder that stays on disk
    assert [path for path in result.files("**") if path != empty] == [
        path for path in on_disk.files("**") if path != empty
    ]
    for path in result.files("data/*"):
        assert result.read(path) == on_disk.read(path)
    verified = run("verify", f"{folder}/out")
    assert verified.code == 0, verified.out
    assert "3 of 3 done" in run("status", f"{folder}/out").out


def test_a_shard_sends_few_requests_beside_its_data(
    folder: str, store: FaultyStore, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (totals, beam):
        monkeypatch.setattr(module, "FEWEST", 1)  # as in a job of many shards
    sent: list[str] = []

    def note(request: Request) -> None:
        if "00001" in request.path or (b"/out/" in request.body[:500] and b"00001" in request.body[:500]):
            sent.append(f"{request.method} {request.path}")

    store.rule = note
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    assert result.code == 0, result.err
    of_the_shard = next(number for number, one in enumerate(sent, 1) if one.startswith("DELETE"))  # of its marker, last
    assert of_the_shard - 1 <= 8, sent[:of_the_shard]


def test_a_run_that_is_done_is_not_done_again(folder: str, tiny_model: Path) -> None:
    first = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    listing = storage.list_files(f"{folder}/out/data")
    second = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    assert (first.code, second.code) == (0, 0), second.err
    assert second.out.startswith("Done already: 3 of 3 shards\n")
    assert storage.list_files(f"{folder}/out/data") == listing


def test_a_shard_whose_mark_was_not_written_is_adopted(folder: str, tiny_model: Path) -> None:
    first = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    before = first.read("data/00001.parquet"), first.marks()[1]["rows_written"]
    storage.delete(f"{folder}/out/_vqbeam/stats/00001.json")

    again = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert again.code == 0, again.err
    assert (again.read("data/00001.parquet"), again.marks()[1]["rows_written"]) == before
    assert again.last_run()["shards"] == {"adopted": 1}
    assert run("verify", f"{folder}/out").code == 0


def test_of_two_attempts_that_differ_the_first_to_put_wins_whole(
    folder: str, store: FaultyStore, tiny_model: Path
) -> None:
    for name, data in {**TABLES, "b.parquet": image_table([GOOD], key=["b0"])}.items():
        storage.put_bytes(data, f"{folder}/other/{name}")
    winner = encode(f"{folder}/other", f"{folder}/winner", tiny_model, *TWO_ROWS)
    content = winner.read("data/00001.parquet")

    def put_before_it(request: Request) -> None:
        if request.uploads("/out/data/00001.parquet") and content not in request.body:
            fs = fsspec.filesystem(folder.partition(":")[0], skip_instance_cache=True)
            if not fs.exists(f"{folder}/out/data/00001.parquet"):
                fs.pipe_file(f"{folder}/out/data/00001.parquet", content)

    store.rule = put_before_it
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert result.read("data/00001.parquet") == content
    assert result.keys() == ["a0", "a1", "b0", "c0", "c1"]
    assert [mark["rows_written"] for mark in result.marks()] == [2, 1, 2]
    assert result.last_run()["shards"] == {"done": 2, "adopted": 1}
    assert run("verify", f"{folder}/out").code == 0


def test_images_in_a_bucket(folder: str, tiny_model: Path) -> None:
    encode(f"{folder}/in", f"{folder}/tokens", tiny_model, *TWO_ROWS)
    source = f"{folder}/tokens/data/*.parquet"
    result = decode(source, f"{folder}/out", tiny_model, *TWO_ROWS, "--contact_sheet")
    assert result.code == 0, result.err
    assert result.keys() == KEYS
    images = [result.read(row["image_path"]) for row in result.rows()]
    assert all(Image.open(io.BytesIO(data)).size == (16, 16) for data in images)
    assert result.files("contact_sheet.png")
    assert run("verify", f"{folder}/out").code == 0


def test_verify_reads_an_image_with_one_request(folder: str, store: FaultyStore, tiny_model: Path) -> None:
    encode(f"{folder}/in", f"{folder}/tokens", tiny_model, *TWO_ROWS)
    decode(f"{folder}/tokens/data/*.parquet", f"{folder}/out", tiny_model, *TWO_ROWS)
    asked: list[str] = []
    store.rule = lambda request: asked.append(request.path) if "/out/images/" in request.path else None
    assert run("verify", f"{folder}/out").code == 0
    images = [path for path in asked if ".png" in path]
    assert len(images) == len(KEYS)
    assert len(asked) - len(images) == 3, "a listing for each shard"


def test_images_of_prompts_in_a_bucket(folder: str, tiny_generator: Path) -> None:
    storage.put_bytes(b"a cat\na dog\n", f"{folder}/prompts.txt")
    flags = ("--input", f"{folder}/prompts.txt", "--model", tiny_generator, *SMALL, "--rows_per_shard", "1")
    first = run("generate", *flags, "--limit", "1", output=f"{folder}/out")
    assert first.code == 0, first.err
    again = run("generate", *flags, "--overwrite", output=f"{folder}/out")
    assert again.code == 0, again.err
    assert [row["prompt"] for row in again.rows()] == ["a cat", "a dog"]
    assert run("verify", f"{folder}/out").code == 0
