"""Jobs that an earlier vqbeam began are finished by this one: what is done stays as it is, the rest is done.

`tests/golden/stored_by_first_layout` holds the output folders of two such jobs; its README says how they were made.
Their plan names its input by a path that is the same from every folder, `/proc/self/cwd/in/...`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import PIL
import pyarrow.parquet as pq
import pytest

from tests.support.run_command import Outcome, run

GOLDEN = Path(__file__).parents[1] / "golden"
STORED = GOLDEN / "stored_by_first_layout"
INPUT_TIME = 1_600_000_000  # mtime of the input, which its plan holds
TIMES = ("seconds", "timings", "vqbeam_version", "objects", "bytes", "files")  # of a mark: what is not counted
SMALL = ("--batch_size", "4", "--threads_per_worker", "1", "--max_error_rate", "1", "--device", "cpu")
HERE = "/proc/self/cwd"
EARLIER = ("--icc", "off", "--strict_images")  # what is chosen now and was all there was then
ENCODE = ("encode", "--input", f"{HERE}/in/pictures.parquet", "--rows_per_shard", "3")
PROMPTS = ("a red apple", "", "a rocket", "a ghost", "a boat on a lake")
GENERATE = ("generate", "--prompt", *PROMPTS, "--rows_per_shard", "2", "--images_per_prompt", "2", "--keep_tokens")

pytestmark = pytest.mark.skipif(not Path(HERE).exists(), reason="the stored plans name paths in Linux's /proc")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the stored jobs, their input, and the model that they were begun with."""
    folder = Path(shutil.copytree(STORED, tmp_path / "work"))
    os.utime(folder / "in" / "pictures.parquet", (INPUT_TIME, INPUT_TIME))
    model = folder / "model"
    no_arrays = shutil.ignore_patterns("*.npy")
    shutil.copytree(GOLDEN / "dallebart_small", model / "dalle_bart", ignore=no_arrays)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        shutil.copy(GOLDEN / "text" / "tokenizer_small" / name, model / "dalle_bart")
    edit(model / "dalle_bart" / "config.json", normalize_text=False)  # else versions of packages decide what is read
    shutil.copytree(GOLDEN / "vqgan_small", model / "vqgan", ignore=no_arrays)
    edit(model / "vqgan" / "config.json", resolution=16, attn_resolutions=[4])  # 4x4 codes, as many as the BART draws
    monkeypatch.chdir(folder)
    return folder


def edit(config: Path, **values: object) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


def job(words: tuple[str, ...], output: Path) -> Outcome:
    return run(*words, "--model", f"{HERE}/model", "--model_cache", "cache", *SMALL, output=output)


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file of the output."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files(folder)
        if path.name not in ("last_run.json", "plan.json")
    }


def names(folder: Path) -> list[str]:
    """Of every file, without the hash of a table of rejected rows, which versions of packages decide; but for lists of
    files, which earlier versions had in marks."""
    found = (path.relative_to(folder).as_posix() for path in files(folder))
    return [re.sub(r"\.[0-9a-f]{16}\.parquet$", ".parquet", name) for name in found if "_vqbeam/files/" not in name]


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted((folder / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def mark(folder: Path, shard: int) -> dict[str, object]:
    values = json.loads((folder / "_vqbeam" / "stats" / f"{shard:05d}.json").read_text())
    return {name: value for name, value in values.items() if name not in TIMES}


def of_shard(folder: Path, shard: int) -> dict[str, object]:
    """What a shard has written, but its mark; of tables the rows and types."""
    folders = tuple(f"{name}/{shard:05d}" for name in ("data", "images", "_vqbeam/errors"))
    inside = (path.relative_to(folder).as_posix() for path in files(folder))
    return {path: content(folder / path) for path in inside if path.startswith(folders)}


def content(path: Path) -> object:
    return pq.read_table(path).replace_schema_metadata() if path.suffix == ".parquet" else path.read_bytes()


def provenance(folder: Path, shard: int) -> object:
    return json.loads(pq.read_schema(folder / "data" / f"{shard:05d}.parquet").metadata[b"vqbeam"])


def check_finished(
    work: Path, output: str, words: tuple[str, ...], *, done: set[int], tabled: set[int], earlier: tuple[str, ...] = ()
) -> Path:
    """Go on with a stored job and check the whole of it against a fresh run, with the flags `earlier` for what there
    was no choice about; returns the folder of that.

    `done` are the shards that the earlier vqbeam finished, `tabled` those whose table it wrote and no mark.
    """
    folder, fresh = work / output, work / "fresh"
    before = state(folder)
    assert not (folder / "_SUCCESS").exists()
    resumed = job(words, folder)
    assert resumed.code == 0, resumed.err
    after = state(folder)
    assert {name: after[name] for name in before} == before, "what was there is as it was"
    assert (folder / "_SUCCESS").exists()
    shards = {int(path.stem) for path in (folder / "data").iterdir()}
    untouched = shards - done - tabled
    assert {"adopted": 0, **resumed.last_run()["shards"]} == {"done": len(untouched), "adopted": len(tabled)}
    assert untouched, "something was left to do"
    assert run("verify", folder).code == 0
    assert job((*words, *earlier), fresh).code == 0
    assert names(fresh) == names(folder)
    for shard in untouched:  # the others may be from another kind of processor, on which codes can be others
        assert of_shard(folder, shard) == of_shard(fresh, shard)
        assert mark(folder, shard) == mark(fresh, shard)
        assert provenance(folder, shard) == provenance(folder, min(done))
    kept = ("key", "caption", "prompt", "sample", "seed", "n", "width", "original_width", "image_path")
    assert [{name: row.get(name) for name in kept} for row in rows(folder)] == [
        {name: row.get(name) for name in kept} for row in rows(fresh)
    ]
    counts = ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "errors")
    for shard in shards:
        assert [mark(folder, shard)[name] for name in counts] == [mark(fresh, shard)[name] for name in counts]
    return fresh


def test_an_encode_job_is_finished(work: Path) -> None:
    """One shard is to be done, and one to be adopted: its table is there and its mark is not."""
    plan = json.loads((work / "encode" / "_vqbeam" / "plan.json").read_text())
    made_with = plan["fingerprint"]["preprocessing"]["pillow"]
    if PIL.__version__ != made_with:  # another Pillow may resize otherwise, so its job is another one
        refused = job(ENCODE, work / "encode")
        assert refused.code == 2
        assert made_with in refused.err
        assert PIL.__version__ in refused.err
        return
    check_finished(work, "encode", ENCODE, done={0, 1}, tabled={3}, earlier=EARLIER)
    rejected = [row for path in (work / "encode/_vqbeam/errors").iterdir() for row in pq.read_table(path).to_pylist()]
    assert [(row["key"], row["error"]) for row in rejected] == [("k4", "not_an_image")]


def test_a_generate_job_is_finished(work: Path) -> None:
    fresh = check_finished(work, "generate", GENERATE, done={0, 2}, tabled=set())
    assert len(list(files(fresh / "images"))) == 2 * (len(PROMPTS) - 1)


def test_other_options_are_refused_for_a_stored_job(work: Path) -> None:
    before = state(work / "generate")
    refused = job((*GENERATE, "--seed", "1"), work / "generate")
    assert (refused.code, "seed" in refused.err) == (2, True)
    assert state(work / "generate") == before
