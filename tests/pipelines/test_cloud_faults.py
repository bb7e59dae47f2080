"""Commands on Google Cloud Storage and S3 in bad weather: nothing lost, nothing half visible, one line each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cloud_tables import KEYS, TABLES, TWO_ROWS
from tests.support.faulty_store import Answer, FaultyStore, Request
from tests.support.make_inputs import GOOD
from tests.support.run_command import encode, run
from transforms import storage

Way = Callable[[Request, int], Answer | None]  # of a request, and how often it was sent before
NO_ACCESS = Answer(403, "the account has no access")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[bytes]:
    """What encoding the input writes on disk."""
    home = tmp_path_factory.mktemp("disk")
    (home / "in").mkdir()
    for name, data in TABLES.items():
        (home / "in" / name).write_bytes(data)
    result = encode(home / "in", home / "out", tiny_model, *TWO_ROWS)
    return [result.read(path) for path in result.files("data/*")]


def rule_of(way: Way) -> Callable[[Request], Answer | None]:
    times: Counter[tuple[str, str, bytes]] = Counter()

    def rule(request: Request) -> Answer | None:
        this = request.method, request.path, request.body
        times[this] += 1
        return way(request, times[this] - 1)

    return rule


LOST = Answer(instead="reset", delivered=True)
DELAY = 5.0  # seconds


def late(request: Request, before: int) -> None:
    """A delay that every request can have; see below for `DELAY`."""
    time.sleep(0.02)


def all_at_once(request: Request, before: int) -> Answer | None:
    """Each request is answered late, and by a 503 at first; then uploads are reset before they are stored, and then
    behind it; reads break off."""
    late(request, before)
    faults = [Answer()]
    if request.uploads("/out/"):
        faults += [Answer(instead="reset"), LOST]
    elif request.reads():
        faults.append(Answer(instead="cut"))
    return faults[before] if before < len(faults) else None


def at_first(answer: Answer, concerns: Callable[[Request], bool]) -> Way:
    return lambda request, before: answer if not before and concerns(request) else None


WAYS: dict[str, Way] = {
    "each request is answered by a 503 at first": at_first(Answer(), lambda request: True),
    "each upload is reset before it was stored": at_first(Answer(instead="reset"), lambda one: one.uploads("/out/")),
    "each upload is stored, and its answer lost": at_first(LOST, lambda one: one.uploads("/out/")),
    "each upload is stored, and answered by a 503": at_first(Answer(delivered=True), lambda one: one.uploads("/out/")),
    "each read breaks off": at_first(Answer(instead="cut"), Request.reads),
    "each answer comes late": late,
}


@pytest.mark.parametrize(
    "way",
    [pytest.param(all_at_once), *(pytest.param(way, marks=pytest.mark.slow, id=name) for name, way in WAYS.items())],
)
def test_what_passes_by_itself_changes_nothing(
    way: Way,
    folder: str,
    store: FaultyStore,
    tables: list[bytes],
    tiny_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.rule = rule_of(way)
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    assert result.code == 0, result.err
    assert "cannot" not in result.err + caplog.text
    assert store.asked > 5 or way is late
    assert [result.read(path) for path in result.files("data/*")] == tables
    assert result.last_run()["rows"]["rows_written"] == len(KEYS)
    assert result.files("_SUCCESS")
    assert run("verify", f"{folder}/out").code == 0


@pytest.mark.slow
def test_answers_that_come_five_seconds_late_change_nothing(
    folder: str, store: FaultyStore, tables: list[bytes], tiny_model: Path
) -> None:
    """A read, the plan, a table, a mark and the account of the run, each at its first try."""
    delayed: list[str] = []

    def slow(request: Request, before: int) -> None:
        for name, concerns in {
            "read": request.reads("/in/b.parquet"),
            "plan": request.uploads("/out/_vqbeam/shards.parquet"),
            "table": request.uploads("/out/data/00001.parquet"),
            "mark": request.uploads("/out/_vqbeam/stats/00002.json"),
            "account": request.uploads("/out/_vqbeam/last_run.json"),
        }.items():
            if concerns and name not in delayed:
                delayed.append(name)
                time.sleep(DELAY)

    store.rule = rule_of(slow)
    began = time.monotonic()
    result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
    assert result.code == 0, result.err
    assert sorted(delayed) == ["account", "mark", "plan", "read", "table"]
    assert time.monotonic() - began > 2 * DELAY
    assert [result.read(path) for path in result.files("data/*")] == tables
    assert result.last_run()["rows"]["rows_written"] == len(KEYS)
    assert run("verify", f"{folder}/out").code == 0


def test_one_put_that_is_forbidden_is_one_line_and_the_same_command_resumes(
    folder: str, store: FaultyStore, tables: list[bytes], tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, code, done in [
        ("_vqbeam/shards.parquet", 1, []),
        ("data/00001.parquet", 1, ["00000", "00002"]),
        ("_vqbeam/stats/00001.json", 1, ["00000", "00002"]),
        ("_vqbeam/last_run.json", 0, ["00000", "00001", "00002"]),
    ]:
        store.rule = lambda request, name=name: NO_ACCESS if request.uploads(f"/out/{name}") else None
        result = encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS)
        assert result.code == code, (name, result.err)
        told = [line for line in (result.out + result.err + caplog.text).splitlines() if NO_ACCESS.message in line]
        caplog.clear()
        assert len(told) == 1, (name, result.out, result.err)
        assert "Traceback" not in result.out + result.err
        assert [Path(path).stem for path in result.files("_vqbeam/stats/*.json")] == done, name
        assert bool(result.files("_SUCCESS")) == (not code)
    assert [result.read(path) for path in result.files("data/*")] == tables
    store.rule = lambda request: None
    assert encode(f"{folder}/in", f"{folder}/out", tiny_model, *TWO_ROWS).code == 0
    assert run("verify", f"{folder}/out").code == 0


DOWN = Answer(503)
EXPIRED = Answer(401, "Invalid Credentials")


@pytest.mark.parametrize(
    ("direction", "answer"),
    [
        ("reading", DOWN),
        ("writing", NO_ACCESS),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [("writing", DOWN), ("reading", EXPIRED), ("writing", EXPIRED), ("reading", NO_ACCESS)]
        ),
    ],
)
def test_a_fault_of_the_store_fails_its_shard_until_it_is_mended(
    direction: str, answer: Answer, folder: str, store: FaultyStore, tiny_model: Path
) -> None:
    images = f"{folder}/images"
    for key in ("a", "b", "c"):
        storage.put_bytes(GOOD, f"{images}/{key}.jpg")

    def refuse(request: Request) -> Answer | None:
        bad = request.reads("images/b.jpg") if direction == "reading" else request.uploads("/out/data/00001.parquet")
        return answer if bad else None

    store.rule = refuse
    result = encode(images, f"{folder}/out", tiny_model, "--rows_per_shard", "1")

    assert result.code == 1, result.err
    ((shard, why),) = result.last_run()["failed"]
    assert shard == 1
    assert answer.message in why
    assert answer.message in result.out
    assert result.keys() == ["a", "c"]
    assert result.rejected() == []
    assert not result.files("_SUCCESS")

    store.rule = lambda request: None
    again = encode(images, f"{folder}/out", tiny_model, "--rows_per_shard", "1")
    assert again.code == 0, again.err
    assert again.keys() == ["a", "b", "c"]
    assert run("verify", f"{folder}/out").code == 0


def test_a_bucket_that_may_not_be_listed_is_said_before_anything_is_written(
    folder: str, store: FaultyStore, tmp_path: Path, tiny_model: Path
) -> None:
    store.rule = lambda request: NO_ACCESS
    result = encode(f"{folder}/in/*.parquet", tmp_path / "out", tiny_model)
    assert result.code == 1
    assert f"cannot list {folder}/in/*.parquet" in result.err
    assert NO_ACCESS.message in result.err
    assert not (tmp_path / "out").exists()
