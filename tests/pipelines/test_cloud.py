"""Encode, decode, verify and status with everything on Google Cloud Storage, emulated, in good weather and in bad."""

from __future__ import annotations

import asyncio
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from PIL import Image

from tests.support.gcs_faults import Answer, FaultyStore, Request
from tests.support.make_inputs import GOOD, image_table
from tests.support.run_command import Outcome, decode, encode, run
from transforms.engine import beam
from transforms.ledger import totals

TABLES = {f"{name}.parquet": image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]) for name in "abc"}
KEYS = ["a0", "a1", "b0", "b1", "c0", "c1"]
TWO_ROWS = ("--rows_per_shard", "2")


@pytest.fixture
def folder(gcs_bucket: str, tmp_path: Path) -> str:
    """A new folder of the bucket for each test, with three tables of two rows below `in`."""
    url = f"{gcs_bucket}/{tmp_path.name}"
    for name, data in TABLES.items():
        fsspec.filesystem("gs").pipe_file(f"{url}/in/{name}", data)
    return url


@pytest.fixture
def store(gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The way to the bucket leads through this store; gcsfs tries again at once."""

    async def no_wait(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=no_wait))
    with FaultyStore(os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://")) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def keys(result: Outcome) -> list[str]:
    return [row["key"] for row in result.rows()]


def test_a_dataset_in_a_bucket_gives_the_same_bytes_as_on_disk(folder: str, tmp_path: Path, tiny_model: Path) -> None:
    local = tmp_path / "in"
    local.mkdir()
    for name, data in TABLES.items():
        (local / name).write_bytes(data)
    on_disk = encode(local, tmp_path / "out", tiny_model, *TWO_ROWS)

    result = encode(f"{folder}/in/{{a,b,c}}.parquet", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert keys(result) == KEYS
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
    listing = fsspec.filesystem("gs").find(f"{folder}/out/data", detail=True)
    second = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    assert (first.code, second.code) == (0, 0), second.err
    assert second.out.startswith("Done already: 3 of 3 shards\n")
    fsspec.filesystem("gs").invalidate_cache()
    assert fsspec.filesystem("gs").find(f"{folder}/out/data", detail=True) == listing


def test_a_shard_whose_mark_was_not_written_is_adopted(folder: str, tiny_model: Path) -> None:
    first = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    before = first.read("data/00001.parquet"), first.marks()[1]["rows_written"]
    fsspec.filesystem("gs").rm_file(f"{folder}/out/_vqbeam/stats/00001.json")

    again = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert again.code == 0, again.err
    assert (again.read("data/00001.parquet"), again.marks()[1]["rows_written"]) == before
    assert again.last_run()["shards"] == {"adopted": 1}
    assert run("verify", f"{folder}/out").code == 0


def test_of_two_attempts_that_differ_the_first_to_put_wins_whole(
    folder: str, store: FaultyStore, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("gs")
    for name, data in {**TABLES, "b.parquet": image_table([GOOD], key=["b0"])}.items():
        fs.pipe_file(f"{folder}/other/{name}", data)
    winner = encode(f"{folder}/other", f"{folder}/winner", tiny_model, *TWO_ROWS)
    content = winner.read("data/00001.parquet")

    def put_before_it(request: Request) -> None:
        if request.uploads("/out/data/00001.parquet") and content not in request.body:
            fs_of_winner = fsspec.filesystem("gs", skip_instance_cache=True)
            if not fs_of_winner.exists(f"{folder}/out/data/00001.parquet"):
                fs_of_winner.pipe_file(f"{folder}/out/data/00001.parquet", content)

    store.rule = put_before_it
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert result.read("data/00001.parquet") == content
    assert keys(result) == ["a0", "a1", "b0", "c0", "c1"]
    assert [mark["rows_written"] for mark in result.marks()] == [2, 1, 2]
    assert result.last_run()["shards"] == {"done": 2, "adopted": 1}
    assert run("verify", f"{folder}/out").code == 0


def test_images_in_a_bucket(folder: str, tiny_model: Path) -> None:
    encode(f"{folder}/in", f"{folder}/tokens", tiny_model, *TWO_ROWS)
    source = f"{folder}/tokens/data/*.parquet"
    result = decode(source, f"{folder}/out", tiny_model, *TWO_ROWS, "--contact_sheet")
    assert result.code == 0, result.err
    assert keys(result) == KEYS
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


def test_a_store_that_fails_for_a_while_is_asked_again(folder: str, store: FaultyStore, tiny_model: Path) -> None:
    times: Counter[tuple[str, str]] = Counter()

    def twice(request: Request) -> Answer | None:
        times[request.method, request.path] += 1
        return Answer(503) if times[request.method, request.path] <= 2 else None

    store.rule = twice
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert store.asked > 20
    assert keys(result) == KEYS
    assert run("verify", f"{folder}/out").code == 0


def test_an_upload_whose_reply_is_lost_counts_once(folder: str, store: FaultyStore, tiny_model: Path) -> None:
    def lose_first_reply(request: Request) -> Answer | None:
        lost = request.uploads("/out/data/") and not store.asked
        return Answer(503, delivered=True) if lost else None

    store.rule = lose_first_reply
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)

    assert result.code == 0, result.err
    assert store.asked == 1
    assert keys(result) == KEYS
    assert run("verify", f"{folder}/out").code == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(503), "out of sorts"),
        (Answer(401, "Invalid Credentials"), "Invalid Credentials"),
        (Answer(403, "the account has no access"), "the account has no access"),
    ],
    ids=["a store that is down", "an expired credential", "a credential without access"],
)
@pytest.mark.parametrize("direction", ["reading", "writing"])
def test_a_fault_of_the_store_fails_its_shard_until_it_is_mended(
    direction: str, answer: Answer, reason: str, folder: str, store: FaultyStore, tiny_model: Path
) -> None:
    images = f"{folder}/images"
    for key in ("a", "b", "c"):
        fsspec.filesystem("gs").pipe_file(f"{images}/{key}.jpg", GOOD)

    def refuse(request: Request) -> Answer | None:
        bad = request.reads("images/b.jpg") if direction == "reading" else request.uploads("/out/data/00001.parquet")
        return answer if bad else None

    store.rule = refuse
    result = encode(images, f"{folder}/out", tiny_model, "--rows_per_shard", "1")

    assert result.code == 1, result.err
    ((shard, why),) = result.last_run()["failed"]
    assert shard == 1
    assert reason in why
    assert reason in result.out
    assert keys(result) == ["a", "c"]
    assert result.rejected() == []
    assert not result.files("_SUCCESS")

    store.rule = lambda request: None
    again = encode(images, f"{folder}/out", tiny_model, "--rows_per_shard", "1")
    assert again.code == 0, again.err
    assert keys(again) == ["a", "b", "c"]
    assert run("verify", f"{folder}/out").code == 0


def test_a_bucket_that_may_not_be_listed_is_said_before_anything_is_written(
    folder: str, store: FaultyStore, tmp_path: Path, tiny_model: Path
) -> None:
    store.rule = lambda request: Answer(403, "the account has no access")
    result = encode(f"{folder}/in/*.parquet", tmp_path / "out", tiny_model)
    assert result.code == 1
    assert f"cannot list {folder}/in/*.parquet" in result.err
    assert "the account has no access" in result.err
    assert not (tmp_path / "out").exists()
