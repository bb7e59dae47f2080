"""Running pipelines here, in each of Beam's local modes, and refusing what cannot run elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest

from pipelines.engines import is_local, runner_name
from pipelines.launch import run_pipeline
from pipelines.local_worker import worker_pids
from pipelines.local_workers import local_workers
from pipelines.scratch import scratch_folder
from transforms.engine.monitor import Monitor, read_totals
from transforms.errors import UsageError

MODES = [([], 1), (["--direct_running_mode=multi_threading"], 2), ([], 2)]
MODE_NAMES = ["in_memory", "multi_threading", "multi_processing"]


class LeaveFile(beam.DoFn):
    """Writes a file named by its element, with the process that worked on it."""

    def __init__(self, folder: str, scratch: str) -> None:
        self._folder = folder
        self._scratch = scratch

    def process(self, element: int) -> Iterator[int]:
        Path(self._folder, str(element)).write_text(str(os.getpid()))
        Monitor(self._scratch).add(shards_done=1, rows_read=element)
        yield element


@pytest.mark.parametrize(("beam_args", "workers"), MODES, ids=MODE_NAMES)
def test_every_local_mode_does_all_the_work_and_counts_it(tmp_path, capfd, beam_args, workers):
    with scratch_folder(str(tmp_path)) as scratch:
        result = run_pipeline(
            lambda pipeline: leave_files(pipeline, tmp_path, scratch, 5), beam_args, **here(workers, scratch)
        )
        totals = read_totals(scratch)
        assert worker_pids(scratch) == []
    assert (result.state, result.exit_code) == ("DONE", 0)
    pids = {int((tmp_path / str(n)).read_text()) for n in range(5)}
    assert (os.getpid() in pids) == (workers == 1 or bool(beam_args))
    assert (totals["shards_done"], totals["rows_read"]) == (5, 10)
    assert capfd.readouterr() == ("", "")


def test_what_the_pipeline_raises_is_raised_to_the_caller(tmp_path):
    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create([0]) | beam.Map(lambda number: 1 // number)

    with scratch_folder(str(tmp_path)) as scratch, pytest.raises(ZeroDivisionError):
        run_pipeline(build, [], **here(1, scratch))


def test_signal_handlers_are_as_before_after_a_run(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with scratch_folder(str(tmp_path)) as scratch:
        run_pipeline(lambda pipeline: leave_files(pipeline, tmp_path, scratch, 1), [], **here(1, scratch))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def leave_files(pipeline: beam.Pipeline, folder: Path, scratch: str, count: int) -> None:
    _ = pipeline | beam.Create(range(count)) | beam.Reshuffle() | beam.ParDo(LeaveFile(str(folder), scratch))


def here(workers: int, scratch: str) -> dict:
    return {"workers": workers, "scratch": scratch}


@pytest.mark.parametrize(
    ("beam_args", "local"),
    [
        ([], True),
        (["--runner=FnApiRunner"], True),
        (["--runner", "direct"], True),
        (["--runner", "DirectRunner"], True),
        (["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], True),
        (["--runner=DataflowRunner"], False),
        (["--runner", "PortableRunner", "--job_endpoint=embed"], False),
        (["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], False),
    ],
)
def test_local_runs_are_told_from_others(beam_args, local):
    assert is_local(beam_args) == local


@pytest.mark.parametrize(
    ("beam_args", "name"),
    [
        ([], None),
        (["--runner=dataflow"], "dataflowrunner"),
        (["--runner", "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"], "dataflowrunner"),
        (["--runner=FlinkRunner", "--job_name=after-dataflow"], "flinkrunner"),
        (["--job_name=dataflow"], None),
    ],
)
def test_the_runner_is_what_the_flag_names_however_it_is_written(beam_args, name):
    assert runner_name(beam_args) == name


@pytest.mark.parametrize(
    ("beam_args", "workers", "number"),
    [
        ([], 0, 0),
        ([], 3, 3),
        (["--direct_num_workers=3"], 0, 3),
        (["--direct_num_workers", "3"], 3, 3),
        (["--direct_num_workers=0"], 0, os.cpu_count()),
        (["--direct_running_mode=in_memory"], 1, 1),
    ],
)
def test_the_number_of_workers_is_ours_or_beams(beam_args, workers, number):
    assert local_workers(beam_args, workers) == number


@pytest.mark.parametrize(
    ("beam_args", "message"),
    [(["--direct_num_workers=3"], "give one"), (["--direct_running_mode=in_memory"], "in_memory has one worker")],
)
def test_contradictions_about_workers_are_refused(beam_args, message):
    with pytest.raises(UsageError, match=message):
        local_workers(beam_args, 2)


@pytest.mark.parametrize(
    ("beam_args", "message"),
    [
        (["--runner=NoSuchRunner"], "--runner NoSuchRunner: Unexpected pipeline runner"),
    ],
)
def test_what_cannot_run_elsewhere_is_refused_before_it_is_tried(tmp_path, beam_args, message):
    with pytest.raises(UsageError, match=message):
        run_pipeline(lambda pipeline: None, beam_args, **here(1, str(tmp_path)))


def test_another_runner_is_handed_the_pipeline_as_it_is(tmp_path):
    beam_args = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    with scratch_folder(str(tmp_path)) as scratch:
        result = run_pipeline(
            lambda pipeline: leave_files(pipeline, tmp_path, scratch, 3), beam_args, **here(1, scratch)
        )
    assert (result.state, result.exit_code) == ("DONE", 0)
    assert all((tmp_path / str(n)).exists() for n in range(3))
