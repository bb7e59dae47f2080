"""Folders as people have them: every file is a row, or is counted and named as passed over."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.make_inputs import folder
from tests.support.run_command import Outcome, encode, run
from transforms import storage
from transforms.inputs import local
from transforms.inputs.listing import find_inputs
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.request import InputRequest
from transforms.ledger.plan import Plan, store_segment
from transforms.ledger.stored_shards import StoredShards, StoredSources, load_shard
from transforms.ledger.types import Shard, Slice, Source

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def jpeg(i: int) -> bytes:
    y, x = np.mgrid[0:32, 0:32]
    out = io.BytesIO()
    Image.fromarray(np.stack([x * 8, y * 8, (x + y + 40 * i) % 256], -1).astype("uint8")).save(out, "JPEG")
    return out.getvalue()


def passed_over(outcome: Outcome) -> dict[str, Any]:
    return json.loads(outcome.read("_vqbeam/plan.json"))["passed_over"]


def names(*patterns: object, input_format: str | None = None) -> list[str]:
    found = find_inputs([str(pattern) for pattern in patterns], input_format)
    return [file.uri.rpartition("/")[2] for file in found.files]


def captions(outcome: Outcome) -> dict[str, str | None]:
    return {row["key"]: row["caption"] for row in outcome.rows()}


def test_images_of_any_name_in_linked_folders_with_captions_of_any_spelling(tmp_path: Path, tiny_model: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    images = ["IMG_1.JPG", "_MG_2.JPG", "_DSC3.jpg", "4.jfif", "5.jpe", "6.jpg_large", "0a1b2c", "k.jpg", "IMG_9.JPG"]
    folder(photos, {name: jpeg(i) for i, name in enumerate(images)})
    folder(photos, {"k.caption": "kohya", "IMG_9.TXT": "upper"})
    folder(elsewhere, {"e.jpg": jpeg(9)})
    (photos / "linked").symlink_to("../elsewhere")
    outcome = encode(photos, tmp_path / "out", tiny_model)
    assert outcome.code == 0, outcome.err
    keys = ["0a1b2c", "4", "5", "6", "IMG_1", "IMG_9", "_DSC3", "_MG_2", "k", "linked/e"]
    assert [row["key"] for row in outcome.rows()] == keys, "in the order of the names"
    assert captions(outcome) == dict.fromkeys(keys) | {"k": "kohya", "IMG_9": "upper"}
    assert "passed over" not in outcome.out
    assert passed_over(outcome) == {}
    plain = encode(folder(tmp_path / "plain", {"e.jpg": jpeg(9)}), tmp_path / "plain_out", tiny_model)
    assert outcome.rows()[-1]["encoding"] == plain.rows()[0]["encoding"]


def test_what_is_not_read_is_counted_and_named(tmp_path: Path, tiny_model: Path) -> None:
    files: dict[str, bytes | str] = {"a.jpg": jpeg(0), "a.txt": "an a", "b.heic": HEIC, "c.HEIC": HEIC, "a.xmp": "<x/>"}
    files |= {"orphan.txt": "of none", ".DS_Store": b"x", "._a.jpg": jpeg(1), "__MACOSX/._a.jpg": b"x", "notes": "text"}
    files |= {"Thumbs.db": b"x", ".git/config": "x", ".git/objects/1.jpg": jpeg(2), "raw.NEF": b"II\x2a\0" + bytes(99)}
    source = folder(tmp_path / "in", files)
    os.mkfifo(source / "pipe.jpg")
    (source / "gone.jpg").symlink_to("nowhere.jpg")
    (source / "loop").symlink_to(".")
    counts = {".heic": 2, ".xmp": 1, ".txt": 1, ".DS_Store": 1, "hidden files": 1, "__MACOSX/": 1, "Thumbs.db": 1}
    counts |= {".git/": 1, ".nef": 1, "without an ending": 1, "no regular files": 1, "broken links": 1}
    counts |= {"links to a folder above": 1}
    planned = encode(source, tmp_path / "out", tiny_model, "--dry_run")
    assert "\npassed over: 2 .heic, 1 .DS_Store, " in planned.out
    assert ", 5 others\n" in planned.out
    outcome = encode(source, tmp_path / "out", tiny_model)
    assert outcome.code == 0, outcome.err
    assert captions(outcome) == {"a": "an a"}
    assert passed_over(outcome)["counts"] == counts
    assert passed_over(outcome)["names"][".heic"] == [f"{source}/b.heic", f"{source}/c.HEIC"]
    assert passed_over(outcome)["names"][".git/"] == [f"{source}/.git/"]
    assert passed_over(outcome)["more"] == 0
    for text in (outcome.out, run("status", outcome.output).out):
        assert "  passed over: 2 .heic, 1 .DS_Store, " in text
    assert "passed over: 2 .heic" in outcome.err, "and at once, before the work"


def test_few_of_many_names_are_kept(tmp_path: Path, tiny_model: Path) -> None:
    source = folder(tmp_path / "in", {f"{i:03d}.heic": HEIC for i in range(50)} | {"a.jpg": jpeg(0)})
    stored = passed_over(encode(source, tmp_path / "out", tiny_model))
    assert (stored["counts"], len(stored["names"][".heic"]), stored["more"]) == ({".heic": 50}, 20, 30)


@pytest.mark.parametrize("pattern", ["_*.JPG", "**/_*.JPG", "*.jfif", "*_large", "[_]*"])
def test_globs_find_such_names(tmp_path: Path, pattern: str) -> None:
    source = folder(tmp_path, {"_1.JPG": jpeg(1), "2.jfif": jpeg(2), "3.jpg_large": jpeg(3)})
    expected = {"*.jfif": ["2.jfif"], "*_large": ["3.jpg_large"]}.get(pattern, ["_1.JPG"])
    assert names(source / pattern) == names(source / pattern, input_format="files") == expected


def test_hidden_files_are_read_if_they_are_asked_for(tmp_path: Path) -> None:
    source = folder(tmp_path, {".a.jpg": jpeg(1), "b.jpg": jpeg(2), ".c/d.jpg": jpeg(3)})
    assert names(source / "*.jpg") == ["b.jpg"]
    assert names(source / ".*.jpg") == [".a.jpg"]
    assert names(source / ".c") == names(source / ".c/*.jpg") == ["d.jpg"]


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.jpg", "/*/*.jpg"])
def test_links_to_folders_are_followed(tmp_path: Path, pattern: str) -> None:
    folder(tmp_path / "elsewhere", {"e.jpg": jpeg(9), "t.txt": "x"})
    source = folder(tmp_path / "in", {"own/a.jpg": jpeg(0)})
    (source / "linked").symlink_to("../elsewhere")
    (source / "linked" / "back").symlink_to("../in")
    found = find_inputs([f"{source}{pattern}"], None)
    assert [file.uri for file in found.files] == [f"{source}/linked/e.jpg", f"{source}/own/a.jpg"]
    deep = pattern != "/*/*.jpg"
    assert found.passed.counts.get("links to a folder above", 0) == deep


def test_what_a_listing_says_of_a_file_is_what_reading_checks(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0)})
    (source / "b.jpg").symlink_to("a.jpg")
    for found in find_inputs([str(source)], None).files:
        assert found.info == storage.stat(found.uri)


def test_what_a_listing_says_of_an_object_is_what_reading_checks(gcs_bucket: str) -> None:
    storage.put_bytes(jpeg(0), f"{gcs_bucket}/listed/a.jpg")
    (found,) = find_inputs([f"{gcs_bucket}/listed"], None).files
    assert found.info == storage.stat(found.uri)
    assert found.info.checksum


def test_a_listing_has_the_order_of_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.inputs.local.CHUNK", 3)
    made = [
        "a.jpg",
        "a/1.jpg",
        "a-1.jpg",
        "a0.jpg",
        "a/b/2.jpg",
        "a/b.jpg",
        "é.jpg",
        "Z.jpg",
        "\U0001f600.jpg",
        "\uffee.jpg",
    ]
    source = folder(tmp_path, {name: jpeg(0) for name in made})
    found = [file.uri.removeprefix(f"{source}/") for file in find_inputs([str(source)], None).files]
    assert found == sorted(made)


@pytest.mark.parametrize(
    ("beside", "flags", "caption"),
    [
        ({"a.caption": "c"}, [], "c"),
        ({"a.TXT": "c"}, [], "c"),
        ({"a.jpg.txt": "c"}, [], "c"),
        ({"a.jpg.Caption": "c"}, [], "c"),
        ({"a.txt": "t", "a.caption": "c"}, [], "t"),
        ({"a.txt": "t", "a.caption": "c"}, ["--caption_column", "caption"], "c"),
        ({"a.tags": "c", "a.txt": "t"}, ["--caption_column", "tags"], "c"),
        ({"a.txt": "  \n"}, [], None),
        ({"a.txt": "two\nlines\n"}, [], "two\nlines"),
        ({"a.JSON": '{"caption": "c"}'}, [], "c"),
    ],
)
def test_captions_beside_images(
    tmp_path: Path, tiny_model: Path, beside: dict[str, bytes | str], flags: list[str], caption: str | None
) -> None:
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0), **beside})
    outcome = encode(source, tmp_path / "out", tiny_model, *flags)
    assert outcome.code == 0, outcome.err
    assert captions(outcome) == {"a": caption}
    assert outcome.total("missing_captions") == (caption is None)
    unread = {f".{name.rpartition('.')[2]}": 1 for name in beside if len(beside) > 1 and caption != beside[name]}
    assert passed_over(outcome).get("counts", {}) == unread, "of several captions one is read, the others are told"


def test_a_text_beyond_the_limit_rejects_its_image(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.inputs.formats.files.MAX_TEXT_BYTES", 9)
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0), "a.txt": "0123456789", "b.jpg": jpeg(1), "b.txt": "012345678"})
    outcome = encode(source, tmp_path / "out", tiny_model)
    assert captions(outcome) == {"b": "012345678"}
    assert [(row["key"], row["error"]) for row in outcome.rejected()] == [("a", "broken_record")]


@pytest.mark.parametrize("flags", [[], ["--input_format", "files"]])
def test_a_metadata_parquet_describes_its_folder(tmp_path: Path, tiny_model: Path, flags: list[str]) -> None:
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0), "d/b.jpg": jpeg(1), "c.jpg": jpeg(2)})
    table = {
        "file_name": ["a.jpg", "d/b.jpg"],
        "text": ["an a", "a b"],
        "n": [1, 2],
        "when": pa.array([0, 1], pa.date32()),
    }
    pq.write_table(pa.table(table), source / "metadata.parquet")
    outcome = encode(source, tmp_path / "out", tiny_model, *flags)
    assert outcome.code == 0, outcome.err
    assert captions(outcome) == {"a": "an a", "d/b": "a b", "c": None}
    assert [(row["n"], row["when"]) for row in outcome.rows()] == [(1, "1970-01-01"), (2, "1970-01-02"), (None, None)]
    assert encode(source, tmp_path / "out", tiny_model, *flags).code == 0


def test_texts_of_images_that_metadata_names_are_passed_over(tmp_path: Path, tiny_model: Path) -> None:
    files: dict[str, bytes | str] = {"a.jpg": jpeg(0), "a.txt": "of a", "b.jpg": jpeg(1), "b.txt": "of b"}
    files |= {"c.jpg": jpeg(2), "c.png": jpeg(3), "c.txt": "of c.png, too"}
    files |= {"metadata.csv": "file_name,text\na.jpg,an a\nc.jpg,a c\n"}
    outcome = encode(folder(tmp_path / "in", files), tmp_path / "out", tiny_model)
    assert [row["caption"] for row in outcome.rows()] == ["an a", "a c", "of b", "of c.png, too"]
    assert passed_over(outcome)["names"] == {".txt": [str(tmp_path / "in" / "a.txt")]}


def test_other_formats_count_what_lies_beside_them(tmp_path: Path) -> None:
    files = {
        "0.parquet": b"x",
        "_metadata": b"x",
        "_x.parquet": b"x",
        "_SUCCESS": b"",
        "readme.md": b"x",
        "b.jfif": jpeg(0),
    }
    found = find_inputs([str(folder(tmp_path, files))], None)
    assert [file.uri for file in found.files] == [f"{tmp_path}/0.parquet"]
    assert dict(found.passed.counts) == {"_metadata": 1, "_SUCCESS": 1}
    assert [file.uri for file in found.beside] == [
        f"{tmp_path}/{name}" for name in ("_x.parquet", "b.jfif", "readme.md")
    ]
    assert names(tmp_path / "_*.parquet") == names(tmp_path / "_x.parquet") == ["_x.parquet"]


def test_a_folder_of_images_without_endings_is_one(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", {"0a1b": jpeg(0), "0c2d": jpeg(1), "list": "BMW\n"})
    assert names(source) == ["0a1b", "0c2d"]
    assert names(source / "0a1b") == ["0a1b"]


def test_on_a_store_only_open_endings_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "memory:///folders/in"
    files = {f"hash{i:02d}": jpeg(i) for i in range(40)} | {"a.jpg": jpeg(0), "b.jfif": jpeg(1), "c.heic": HEIC}
    files |= {"d.xmp": b"x", "e.foo": jpeg(2), ".git/1.jpg": jpeg(3), ".git/2.jpg": jpeg(4)}
    for name, data in files.items():
        storage.put_bytes(data, f"{root}/{name}")
    asked: list[str] = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri, **limit: asked.append(uri) or read_bytes(uri, **limit))
    found = find_inputs([root], None)
    assert len(found.files) == 42
    assert dict(found.passed.counts) == {".git/": 1}
    assert [file.uri for file in found.beside] == [f"{root}/{name}" for name in ("c.heic", "d.xmp", "e.foo")]
    assert sorted(uri[len(root) + 1 :] for uri in asked) == ["b.jfif", "c.heic", *(f"hash{i:02d}" for i in range(16))]
    asked.clear()
    assert len(find_inputs([root], "files").files) == 43, "told to be a folder of images, every ending is worth a look"
    storage.delete_folder("memory://folders")


def test_save_to_disk_of_datasets_is_refused_with_the_way_out(tmp_path: Path, tiny_model: Path) -> None:
    files = {"data-00000-of-00001.arrow": b"x", "dataset_info.json": "{}", "state.json": "{}"}
    source = folder(tmp_path / "in", files)
    for flags in ([], ["--input_format", "parquet"]):
        encode(source, tmp_path / "out", tiny_model, *flags).check_refused(
            ".arrow", f"load_from_disk('{source}').to_parquet"
        )


def test_pieces_and_shards_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", {f"{i}.jpg": jpeg(0) for i in range(7)})
    planned = plan_sources(InputRequest((str(source),)), 3)
    assert [piece.slice.source.uri[-5:] for piece in planned.pieces] == [f"{i}.jpg" for i in range(7)]
    assert planned.pieces[-1] == planned.pieces[6]
    assert planned.pieces[1:3] == list(planned.pieces)[1:3]


def test_a_rerun_tells_which_files_came_and_went(tmp_path: Path, tiny_model: Path) -> None:
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0), "b.jpg": jpeg(1), "c.jpg": jpeg(2)})
    first = encode(source, tmp_path / "out", tiny_model)
    assert "plan" not in encode(source, tmp_path / "out", tiny_model).err
    folder(source, {"new.jpg": jpeg(3), "text.txt": "no image"})
    (source / "b.jpg").unlink()
    again = encode(source, tmp_path / "out", tiny_model)
    assert again.code == 0, again.err
    assert "1 file is not in the plan: --extend adds it; 1 planned file is gone\n" in again.err
    assert f"  not in the plan: {source}/new.jpg\n  gone: {source}/b.jpg\n" in again.err
    assert again.rows() == first.rows()
    folder(source, {f"new{i}.jpg": jpeg(4 + i) for i in range(4)})
    planned = encode(source, tmp_path / "out", tiny_model, "--dry_run")
    assert "5 files are not in the plan: --extend adds them; 1 planned file is gone\n" in planned.err
    assert f", {source}/new1.jpg and 2 more\n" in planned.err
    extended = encode(source, tmp_path / "out", tiny_model, "--extend")
    assert len(extended.rows()) == 8
    assert passed_over(extended)["counts"] == {".txt": 1}, "as the folder is now"
    for path in source.iterdir():
        path.unlink()
    emptied = encode(source, tmp_path / "out", tiny_model)
    assert (emptied.code, "no matching files" in emptied.err) == (0, True)


def test_images_that_metadata_names_are_planned(tmp_path: Path, tiny_model: Path) -> None:
    files = {"a.jpg": jpeg(0), "b.jpg": jpeg(1), "metadata.csv": "file_name,text\na.jpg,an a\n"}
    source = folder(tmp_path / "in", files)
    for _ in range(2):
        outcome = encode(source, tmp_path / "out", tiny_model)
    assert "plan" not in outcome.err


@pytest.mark.parametrize(("affordable", "listed"), [(2, True), (1, False)])
def test_a_store_is_listed_again_for_a_small_plan_only(
    gcs_bucket: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, affordable: int, listed: bool
) -> None:
    monkeypatch.setattr("pipelines.changes.AFFORDABLE", affordable)
    root = f"{gcs_bucket}/changed{affordable}"
    for name in "ab":
        storage.put_bytes(jpeg(0), f"{root}/in/{name}.jpg")
    assert encode(f"{root}/in", f"{root}/out", tiny_model).code == 0
    storage.put_bytes(jpeg(0), f"{root}/in/c.jpg")
    assert ("1 file is not in the plan" in encode(f"{root}/in", f"{root}/out", tiny_model).err) == listed


@pytest.mark.parametrize("inside", ["", "tokens"])
def test_a_job_does_not_read_its_own_output(tmp_path: Path, tiny_model: Path, inside: str) -> None:
    """An output folder that lies in the input, or is the input."""
    source = folder(tmp_path / "in", {"a.jpg": jpeg(0), "data.jpg": jpeg(1)})
    output = source / inside
    first = run("vary", "--input", source, "--model", tiny_model, "--strength", "0.1", output=output)
    assert first.code == 0, first.err
    folder(source, {"b.jpg": jpeg(2)})
    again = run("vary", "--input", source, "--model", tiny_model, "--strength", "0.1", output=output)
    assert "1 file is not in the plan" in again.err
    assert f"  not in the plan: {source}/b.jpg\n" in again.err
    extended = run("vary", "--input", source, "--model", tiny_model, "--strength", "0.1", "--extend", output=output)
    assert extended.code == 0, extended.err
    assert sorted({row["key"] for row in extended.rows()}) == ["a", "b", "data"]
    assert passed_over(extended)["counts"].keys() >= {"data/ of the output", "images/ of the output", "_vqbeam/"}
    over = run("vary", "--input", source, "--model", tiny_model, "--strength", "0.1", "--overwrite", output=output)
    assert over.code == 0, over.err
    assert sorted({row["key"] for row in over.rows()}) == ["a", "b", "data"]


def test_a_plan_of_images_holds_few_bytes_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes beside the names: ten million images are planned in a gigabyte."""
    count = 30_000

    def walk(pattern: str, leave: local.Leave) -> Iterator[storage.FileInfo]:
        for i in range(count):
            yield storage.FileInfo(f"{pattern}/{i // 1000:03d}/{i:09d}.jpg", 100_000, "1764456000.1234567")

    monkeypatch.setattr(local, "walk", walk)
    request = InputRequest(("/photos",))
    plan_sources(request, 1000)  # what is imported then does not count
    tracemalloc.start()
    planned = plan_sources(request, 1000)
    shards = make_shards(planned.pieces, 1000)
    for shard in shards:
        assert len(shard.slices) == 1000
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shards) == 30
    assert held / count < 70
    assert (peak - held) / 1000 < 2000, "one shard's slices at a time"


def test_a_stored_plan_is_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.ledger.plan.ROW_GROUP", 7)
    sources = [Source(f"/in/{i:03d}.jpg", "files", 1, "v", "/in", 1) for i in range(50)]
    shards = [Shard(n, tuple(Slice(one, 0, 1) for one in sources[n * 10 : n * 10 + 10])) for n in range(5)]
    stored = store_segment(str(tmp_path), Plan("encode", {}, {}, {}), shards)
    assert pq.ParquetFile(tmp_path / "_vqbeam" / "shards.parquet").num_row_groups == 8
    assert list(StoredShards(str(tmp_path), stored)) == shards
    assert [load_shard(str(tmp_path), index) for index in range(5)] == shards
    assert StoredShards(str(tmp_path), stored)[3] == shards[3]
    known = StoredSources(str(tmp_path), stored)
    assert list(known) == [(source.uri, "1 v") for source in sources]
    assert known.are_sorted


def test_sources_of_several_segments_are_merged_if_each_is_sorted(tmp_path: Path) -> None:
    def add(plan: Plan, *names: str) -> Plan:
        parts = tuple(Slice(Source(f"/in/{name}", "files", 1, "v", "/in", 1), 0, 1) for name in names)
        return store_segment(str(tmp_path), plan, [Shard(plan.shards, parts)])

    plan = add(add(Plan("encode", {}, {}, {}), "a", "c", "c", "e"), "b", "d")
    found = StoredSources(str(tmp_path), plan)
    assert (found.are_sorted, list(found.uris())) == (True, ["/in/a", "/in/b", "/in/c", "/in/d", "/in/e"])
    found = StoredSources(str(tmp_path), add(plan, "z", "y"))
    assert (found.are_sorted, [uri[-1] for uri in found.uris()]) == (False, list("acebdzy"))
