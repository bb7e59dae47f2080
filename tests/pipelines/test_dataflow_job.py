"""Jobs of Dataflow as they go on, against a stub of its service; the graph is staged in an emulated bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines import dataflow_job
from pipelines.engine_errors import NO_VQBEAM
from pipelines.stopping import LeftRunning, Terminated
from tests.support.dataflow_service import JOB, Service, dataflow_service
from tests.support.paths import SAMPLE
from tests.support.run_command import Outcome, run

apiclient = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs apache-beam[gcp]")

LINK = f"https://console.cloud.google.com/dataflow/jobs/us-central1/{JOB}?project=my-project"
CANCEL = f"gcloud dataflow jobs cancel {JOB} --region us-central1 --project my-project"
JOB_FLAGS = ("--limit", "6", "--rows_per_shard", "3", "--dtype", "float32")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that is looked at without waiting; Beam does not look for credentials, nor try again."""
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr("apache_beam.utils.retry.time.sleep", lambda seconds: None)
    monkeypatch.setattr(dataflow_job, "STATE_SECONDS", 0.01)
    monkeypatch.setattr(dataflow_job, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(dataflow_job, "REASON_SECONDS", 0.05)
    with dataflow_service() as service:
        yield service


@pytest.fixture(scope="module")
def images(gcs_bucket: str) -> str:
    uri = f"{gcs_bucket}/pairs/00000.tar"
    fsspec.filesystem("gs").pipe_file(uri, (SAMPLE / "emoji-00000.tar").read_bytes())
    return uri


def encode(service: Service, images: str, output: str, *flags: str) -> Outcome:
    bucket = images.rpartition("/pairs/")[0]
    return run(
        *("encode", "--input", images, *JOB_FLAGS, "--runner", "DataflowRunner", "--project", "my-project"),
        *("--region", "us-central1", "--temp_location", f"{bucket}/tmp", "--sdk_container_image", "example/vqbeam:1"),
        *("--dataflow_endpoint", service.url, "--no_auth", *flags),
        output=output,
    )


@pytest.fixture
def output(gcs_bucket: str, tmp_path: Path) -> str:
    return f"{gcs_bucket}/{tmp_path.name}"


def test_a_job_tells_where_it_is_seen_and_how_far_it_is(service: Service, images: str, output: str) -> None:
    here = run("encode", "--input", images, *JOB_FLAGS, "--device", "cpu", output=output)
    assert here.code == 0, here.err
    mark = f"{output}/_vqbeam/stats/{here.files('_vqbeam/stats/*')[1].rpartition('/')[2]}"
    fs = fsspec.filesystem("gs")
    kept = fs.cat_file(mark)
    fs.rm(mark)
    service.states = ["JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    service.counter("rows_read", 2)
    service.counter("rows_written", 1)
    service.counter("rows_written", 2, tentative=True)
    service.messages = [("WARNING", "Startup of the worker pool hit a quota.\nMore of it."), ("DEBUG", "x")]
    answer = service.answer

    def with_the_mark(method: str, path: str, body: bytes):
        if method == "GET" and path.endswith(JOB) and service.states[0] == "JOB_STATE_DONE":
            fs.pipe_file(mark, kept)
        return answer(method, path, body)

    service.answer = with_the_mark  # type: ignore[method-assign]
    done = encode(service, images, output)
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert f"Job {JOB}: {LINK}" in lines
    assert [line.split(" ", 1)[1] for line in lines if line.endswith((" queued", " running", " done"))] == [
        "queued",
        "running",
        "done",
    ]
    assert any(line.endswith("Dataflow: Startup of the worker pool hit a quota") for line in lines)
    assert sum("hit a quota" in line for line in lines) == 1
    assert any(" 1/2 shards, 2/" in line for line in lines)
    assert done.out.startswith("Done: 2 of 2 shards\n")
    (asked,) = service.created
    assert asked["name"].startswith("vqbeam-encode-")
    assert asked["environment"]["workerPools"][0]["numWorkers"] == 1


def test_a_failed_job_ends_in_one_line_and_the_summary(service: Service, images: str, output: str) -> None:
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.messages = [
        ("ERROR", "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'pipelines'\n"),
        ("ERROR", "Workflow failed. Causes: S01 failed., The job failed because a work item was attempted 4 times"),
    ]
    failed = encode(service, images, output)
    assert failed.code == 1
    (reason,) = (line for line in failed.err.splitlines() if line.startswith("DataflowRunner: "))
    assert reason == (
        f"DataflowRunner: job {JOB} failed: {NO_VQBEAM} ({LINK}). Finished shards are kept; the same command resumes"
    )
    assert "Traceback" not in failed.err
    assert failed.out.startswith("Failed: 0 of 2 shards done\n")


def test_a_cancelled_job_says_so(service: Service, images: str, output: str) -> None:
    service.states = ["JOB_STATE_CANCELLED"]
    cancelled = encode(service, images, output)
    assert cancelled.code == 1
    assert f"DataflowRunner: job {JOB} cancelled: {LINK}. " in cancelled.err


def test_no_wait_prints_the_link_and_leaves_the_job(service: Service, images: str, output: str) -> None:
    left = encode(service, images, output, "--no_wait")
    assert left.code == 0, left.err
    assert left.out.splitlines() == [
        f"Job {JOB}: {LINK}",
        "It goes on by itself. The same command says how it ended, this ends it:",
        f"  {CANCEL}",
    ]


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_leaves_the_job_and_says_how_to_cancel_it(
    signal: type[BaseException], code: int, service: Service, images: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: dataflow_job.DataflowJob) -> None:
        raise signal

    monkeypatch.setattr(dataflow_job.DataflowJob, "_state", interrupted)
    with pytest.raises(LeftRunning) as left:
        encode(service, images, output)
    assert 128 + left.value.number == code
    assert left.value.told == f"Job {JOB} goes on without this command: {LINK}\n`{CANCEL}` ends it"


def test_a_signal_while_a_job_is_handed_over_says_how_to_find_it(
    service: Service, images: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(pipeline: object) -> None:
        raise Terminated

    monkeypatch.setattr(dataflow_job, "_submitted", interrupted)
    with pytest.raises(LeftRunning) as left:
        encode(service, images, output, "--job_name", "mine")
    where = "--region us-central1 --project my-project"
    assert f"`gcloud dataflow jobs list --status active --filter name=mine {where}`" in left.value.told
    assert f"`gcloud dataflow jobs cancel ID {where}` ends it" in left.value.told


def test_a_template_says_where_it_was_written(service: Service, images: str, output: str) -> None:
    done = encode(service, images, output, "--template_location", f"{output}/template.json")
    assert done.code == 0, done.err
    assert done.out == f"The template was written to {output}/template.json; no job was started\n"
    assert service.created == []
    assert b"vqbeam" in fsspec.filesystem("gs").cat_file(f"{output}/template.json")


def test_a_service_that_takes_no_job_is_one_line(service: Service, images: str, output: str) -> None:
    service.refusal = (403, "Dataflow API has not been used in project my-project before or it is disabled.")
    refused = encode(service, images, output)
    assert refused.code == 1
    (line,) = refused.err.splitlines()
    assert line.startswith("vqbeam encode: Dataflow took no job: 403 ")
    assert "has not been used in project my-project" in line


def test_the_same_job_is_not_started_twice(service: Service, images: str, output: str) -> None:
    service.another = True
    refused = encode(service, images, output)
    assert refused.code == 2
    (line,) = refused.err.splitlines()
    assert "There is already active job named vqbeam-encode-" in line
    assert "It does this job: wait for its end, or cancel it: `gcloud dataflow jobs list --status active " in line
    assert line.endswith("`gcloud dataflow jobs cancel ID --region us-central1 --project my-project` ends it")


def test_a_service_that_is_unwell_for_a_time_ends_nothing(
    service: Service, images: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.states = ["JOB_STATE_CANCELLED"]
    ask = apiclient.DataflowApplicationClient.get_job
    errors = [OSError("503 the service is unavailable\nfor a time")]

    def sometimes(client: Any, id: str) -> Any:
        if errors:
            raise errors.pop()
        return ask(client, id)

    monkeypatch.setattr(apiclient.DataflowApplicationClient, "get_job", sometimes)
    cancelled = encode(service, images, output)
    assert f"warning: Dataflow does not say how job {JOB} is: 503 the service is unavailable\n" in cancelled.err
    assert f"job {JOB} cancelled" in cancelled.err
