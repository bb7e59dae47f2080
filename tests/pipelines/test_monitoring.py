"""The numbers of a run beside the screen: what each place gets is read back by its own reader."""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import sinks
from pipelines.command import find
from pipelines.flags import job_options
from pipelines.monitoring import Careful, Monitoring
from pipelines.parsing import parser_of
from pipelines.sample import Expected, Sample
from pipelines.sinks import FIELDS, Sink, numbers
from tests.support.paths import ROOT
from tests.support.small_jobs import ROWS, SHARDS, dataset, encode_small
from transforms.errors import UsageError


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


ELSEWHERE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
EXPECTED = Expected(3, 1, rows=40)


def sample(seconds: float, done: float) -> Sample:
    stages = {"read": 0.5, "decode": 1.0, "model": 2.0, "write": 0.25}
    return Sample(EXPECTED, 1e9 + seconds, seconds, rows=40, rows_done=done, rows_per_second=2.0, stages=stages)


SAMPLES = [sample(0, 0), sample(4, 8), sample(11, 22.5), sample(14, 28), sample(20, 40)]


def feed(into: list[Sink]) -> None:
    for number, one in enumerate(SAMPLES, 1):
        for sink in into:
            sink.take(one, last=number == len(SAMPLES))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_numbers_have_the_documented_names() -> None:
    told = numbers(SAMPLES[2])
    assert list(told) == list(FIELDS)
    assert (told["shards_before"], told["rows_done"], told["seconds_left"], told["model_seconds"]) == (1, 22.5, None, 2)


def test_lines_are_appended_at_the_beginning_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        with Monitoring(log_to=str(log)).opened("encode", "out") as into:
            feed(into)
            assert log.read_text().count("\n") % 3 == 0  # not kept back
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "progress", "end"] * 2
    assert [line["rows_done"] for line in lines[:3]] == [0, 22.5, 40]
    assert {(line["command"], line["output"], line["unit"]) for line in lines} == {("encode", "out", "images")}


@needs("prometheus_client")
def test_prometheus_reads_the_newest_sample_and_the_port_is_free_afterwards() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    port = free_port()
    for _ in range(2):
        with Monitoring(metrics_port=port).opened("encode", 'a "quoted" folder') as into:
            feed(into)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
        found = {family.name: family.samples[0] for family in families}
        assert found["vqbeam_rows_done"].value == 40
        assert found["vqbeam_rows_done"].labels == {"command": "encode", "output": 'a "quoted" folder'}
        assert "vqbeam_seconds_left" not in found  # not known


@needs("tensorboard")
def test_tensorboard_reads_its_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Monitoring(tensorboard=str(tmp_path)).opened("encode", "out") as into:
        feed(into)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("vqbeam/rows_done")] == [(0, 0), (22, 22.5), (40, 40)]
    assert "vqbeam/seconds_left" not in events.Tags()["scalars"]


@needs("wandb")
def test_wandb_writes_a_run_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package has no reader of its own file, whose records lie in it as they are."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    importlib.import_module("wandb").teardown()  # a process keeps the folder of its first run
    with Monitoring(wandb="our-project").opened("encode", "home/out-folder") as into:
        feed(into)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    wanted = (b"our-project", b"out-folder", b"rows_done", b"22.5")
    deadline = time.monotonic() + 60
    while not all(text in path.read_bytes() for text in wanted):  # its own process writes it, and ends after us
        assert time.monotonic() < deadline, path.read_bytes()
        time.sleep(0.05)


class Failing:
    closed = 0

    def take(self, sample: Sample, *, last: bool) -> None:
        raise OSError("no space left on device")

    def close(self) -> None:
        self.closed += 1


def test_a_place_that_fails_ends_itself_and_not_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Failing()
    careful = Careful(failing)
    for one in SAMPLES:
        careful.take(one, last=False)
    careful.close()
    assert capsys.readouterr().err == "warning: Failing ends: OSError: no space left on device\n"
    assert failing.closed == 1


@pytest.mark.parametrize(
    ("flag", "package"),
    [("metrics_port=9", "prometheus_client"), ("wandb=p", "wandb"), ("tensorboard=t", "tensorboard")],
)
def test_a_package_that_is_missing_is_named_before_anything_is_stored(
    tmp_path: Path, tiny_model: Path, flag: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused = encode_small(dataset(tmp_path / "in", 1), tmp_path / "out", tiny_model, f"--{flag}")
    extra = flag.partition("=")[0].removesuffix("_port")
    assert refused.code == 2
    assert f"which is not installed: pip install 'vqbeam[{extra}]'\n" in refused.err
    assert not (tmp_path / "out").exists()


@needs("prometheus_client")
def test_a_port_in_use_is_refused_before_anything_is_stored(tmp_path: Path, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = encode_small(dataset(tmp_path / "in", 1), tmp_path / "out", tiny_model, "--metrics_port", str(port))
    assert refused.code == 2
    assert f"--metrics_port {port} on 127.0.0.1: Address already in use" in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["gs://bucket/log", "no/such/folder/log", "."])
def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, tiny_model: Path, path: str) -> None:
    refused = encode_small(dataset(tmp_path / "in", 1), tmp_path / "out", tiny_model, "--log_to", path)
    assert refused.code == 2
    assert f"--log_to {path}: " in refused.err
    assert not (tmp_path / "out").exists()


def test_a_job_that_is_left_to_itself_has_no_numbers_here(tmp_path: Path) -> None:
    words = ["--input", "in", "--output", str(tmp_path / "out"), "--no_wait", "--log_to", str(tmp_path / "log")]
    args = parser_of("encode", find("encode")).parse_args(words)
    with pytest.raises(UsageError, match="--log_to takes the numbers from this command, which --no_wait ends"):
        job_options(args, "images")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SECONDS", 0.0)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "runner", [(), ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")]
)
def test_a_job_logs_what_its_line_says_and_its_flags_change_nothing(
    tmp_path: Path, tiny_model: Path, runner: tuple[str, ...]
) -> None:
    """Elsewhere it is what the marks say."""
    source, output, log = dataset(tmp_path / "in"), tmp_path / "out", tmp_path / "log"
    assert encode_small(source, output, tiny_model, *runner, "--log_to", log).code == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines[-1]["event"], lines[-1]["shards_done"]) == ("end", SHARDS)
    if not runner:
        assert lines[0]["event"] == "start"
        assert (lines[-1]["rows"], lines[-1]["rows_done"]) == (SHARDS * ROWS, SHARDS * ROWS)
    again = encode_small(source, output, tiny_model, *runner)
    assert again.code == 0
    assert "Done already" in again.out


@needs("prometheus_client")
def test_a_job_can_be_read_while_it_runs(tmp_path: Path, tiny_model: Path) -> None:
    port, seen = free_port(), []

    def ask() -> Iterator[str]:
        while not done.is_set():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
                    yield answer.read().decode()
            except OSError:
                time.sleep(0.01)

    done = threading.Event()
    thread = threading.Thread(target=lambda: seen.extend(ask()))
    thread.start()
    outcome = encode_small(dataset(tmp_path / "in"), tmp_path / "out", tiny_model, "--metrics_port", str(port))
    done.set()
    thread.join()
    assert outcome.code == 0
    assert any("vqbeam_shards{" in text for text in seen)


def test_the_page_lists_every_field() -> None:
    page = (ROOT / "docs" / "monitor.md").read_text()
    assert [name for name in FIELDS if f"`{name}`" not in page] == []
