"""Commands on a cluster of Dask with two worker processes give the bytes of the in-process run."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import engines
from pipelines.__main__ import _as_process
from tests.support import dask_workers
from tests.support.real_runs import children
from tests.support.run_command import SMALL, run
from tests.support.small_jobs import encode_small

pytestmark = pytest.mark.runners
distributed = pytest.importorskip("distributed", reason='no Dask: `make test-runners` installs it, or ".[dask]"')


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with dask_workers.cluster() as client:
        yield client


@pytest.fixture
def there(client: Any) -> tuple[str, ...]:
    return ("--runner=DaskRunner", f"--dask_client_address={client.scheduler.address}")


@pytest.mark.parametrize("command", ["encode", "decode", "generate"])
def test_every_command_gives_the_same_bytes(tmp_path, engine_job, there, command):
    job = engine_job(command)
    here = run(command, *job, output=tmp_path / "here")
    outcome = run(command, *job, *there, output=tmp_path / "there")
    assert (here.code, outcome.code) == (0, 0), here.err + outcome.err
    assert here.data() == outcome.data() != {}
    assert len(outcome.marks()) > 1
    assert "Traceback" not in outcome.err
    assert outcome.files("_SUCCESS")
    assert outcome.last_run()["shards"] == {"done": len(outcome.marks())}
    assert outcome.last_run()["rows"]["rows_written"] == outcome.total("rows_written")


def test_shards_are_done_in_both_processes_with_one_model_each(tmp_path, engine_images, tiny_model, client, there):
    client.run(dask_workers.begin_counting)
    outcome = encode_small(engine_images, tmp_path / "out", tiny_model, "--rows_per_shard", "3", *there)
    assert outcome.code == 0, outcome.err
    counted = list(client.run(dask_workers.counted).values())
    shards = [counts["ShardAttempt.run"] for counts in counted]
    assert len(shards) == dask_workers.WORKERS
    assert sum(shards) == len(outcome.marks()) == 16
    assert min(shards) >= 4
    assert [counts["EncodeStep.setup"] for counts in counted] == [1] * dask_workers.WORKERS


def test_shards_that_fail_are_told_with_their_reasons_and_the_same_command_resumes(
    tmp_path, engine_images, tiny_model, there, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.pending.versions_here", lambda: {"pillow": "0.1"})
        outcome = encode_small(engine_images, tmp_path / "out", tiny_model, *there)
    assert outcome.code == 1
    assert "shard 00000: the worker has pillow" in outcome.out
    assert len(outcome.last_run()["failed"]) == 4
    assert encode_small(engine_images, tmp_path / "out", tiny_model, *there).code == 0


def test_ctrl_c_has_the_workers_drop_their_shards(tmp_path, engine_images, tiny_model, client, there, capfd):
    client.run(dask_workers.wait_in_shards, str(tmp_path))

    def press() -> None:
        dask_workers.began(tmp_path, 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    places = ["--input", engine_images, "--output", tmp_path / "out", "--model", tiny_model]
    flags = map(str, [*places, *SMALL, "--rows_per_shard", "5"])
    assert _as_process(["encode", *flags, *there]) == 130
    assert len(list(tmp_path.glob("began-*"))) == 2, "no shard is begun after the signal"
    assert not any(client.run(at_work).values())
    told = capfd.readouterr().err
    assert "Stopped. Finished shards are kept; to resume:\n  " in told
    assert "Traceback" not in told
    (tmp_path / "finish").touch()
    assert encode_small(engine_images, tmp_path / "out", tiny_model, "--rows_per_shard", "5", *there).code == 0


def at_work() -> bool:
    from transforms.engine import runs

    return any(runs._at_work.values())


def test_a_killed_worker_is_made_good_by_dask(tmp_path, engine_images, tiny_model, client, there):
    here = encode_small(engine_images, tmp_path / "here", tiny_model)
    client.run(dask_workers.wait_in_shards, str(tmp_path))
    killer = threading.Thread(target=kill_one_at_work, args=(tmp_path,))
    killer.start()
    outcome = encode_small(engine_images, tmp_path / "there", tiny_model, *there)
    killer.join()
    assert outcome.code == 0, outcome.err
    assert here.data() == outcome.data()
    assert "Traceback" not in outcome.err


def kill_one_at_work(signs: Path) -> None:
    """Kill a worker once both are at a shard, and have the other go on."""
    os.kill(dask_workers.began(signs, 2)[0], signal.SIGKILL)
    (signs / "finish").touch()


def test_without_an_address_dask_makes_a_cluster_that_ends_with_the_command(tmp_path, engine_images, tiny_model):
    before = set(children(os.getpid()))
    outcome = encode_small(engine_images, tmp_path / "out", tiny_model, "--runner=DaskRunner")
    assert outcome.code == 0, outcome.err
    assert set(children(os.getpid())) <= before


def test_the_public_transforms_refuse_dask(client):
    import apache_beam as beam
    from apache_beam.runners.dask.dask_runner import DaskRunner

    from transforms.errors import UsageError
    from transforms.inference.images import EncodeImages

    pipeline = beam.Pipeline(runner=DaskRunner())
    rows = pipeline | beam.Create([{"image": b""}])
    with pytest.raises(UsageError, match="DaskRunner mixes the outputs of a step"):
        rows | EncodeImages("emoji")


def test_workers_that_lack_a_module_are_refused_before_anything_is_stored(
    tmp_path, engine_images, tiny_model, there, monkeypatch
):
    (tmp_path / "only_here.py").write_text("def versions(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    monkeypatch.setattr("pipelines.dask_cluster.versions_here", only_here.versions)
    outcome = encode_small(engine_images, tmp_path / "out", tiny_model, *there)
    outcome.check_refused(there[1].replace("=", " "), "No module named 'only_here'")
    assert outcome.err.count("\n") == 1


@pytest.fixture
def nobody() -> str:
    """An address that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dask_client_address=tcp://{nobody}", "--dask_client_address tcp://{nobody} cannot be reached"),
        ("--dask_client_address={nobody}", "--dask_client_address {nobody} cannot be reached"),
        ("--dask_client_address=somewhere", "--dask_client_address somewhere: expected HOST:PORT"),
        ("--dask_client_address=odd://{nobody}", "--dask_client_address odd://{nobody}: no scheduler of Dask answers"),
        ("--dask_scheduler_file=/no/file", "--dask_scheduler_file /no/file is no file"),
    ],
)
@pytest.mark.timeout(60)
def test_a_scheduler_that_is_not_there_is_refused(tmp_path, nobody, flag, message):
    began = time.monotonic()
    flag, message = (text.format(nobody=nobody) for text in (flag, message))
    outcome = run("encode", "--input", tmp_path / "none", "--runner=DaskRunner", flag, output=tmp_path / "out")
    outcome.check_refused(message)
    assert outcome.err.count("\n") == 1
    assert time.monotonic() - began < 10


@pytest.mark.timeout(60)
def test_something_else_than_a_scheduler_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = ("--runner=DaskRunner", f"--dask_client_address={address}")
        outcome = run("encode", "--input", tmp_path / "none", *flags, output=tmp_path / "out")
    outcome.check_refused(f"--dask_client_address {address}: no scheduler of Dask answers there")
    assert outcome.err.count("\n") == 1
