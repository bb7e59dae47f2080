"""The job that Dataflow would get: built and staged against a storage emulator, parsed back, never launched."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import fsspec
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from tests.support.shard_runs import SPEC
from transforms.engine.beam import ProcessShards, shard_ranges
from transforms.engine.job import Job
from transforms.images import ImageOptions
from transforms.inputs.request import InputSchema
from transforms.work.encode import Encode
from transforms.work.step import ModelSettings

pytest.importorskip("apitools", reason="needs apache-beam[gcp]")


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # else Beam looks for some for 20 s


def a_job(output: str) -> Job:
    return Job(
        work=Encode(
            ModelSettings("emoji", "~/.cache/vqbeam", "torch", "cuda", "bfloat16", 64, 4),
            ImageOptions(size=128),
            SPEC,
        ),
        output=output,
        schema=InputSchema(kind="images", image="jpg"),
        provenance={},
        version="test",
    )


@pytest.mark.slow
def test_the_job_is_staged_with_its_container_and_hints(
    gcs_bucket: str, no_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PipelineOptions(
        [
            "--runner=DataflowRunner",
            "--project=somewhere",
            "--region=us-central1",
            f"--temp_location={gcs_bucket}/tmp",
            f"--staging_location={gcs_bucket}/staging",
            f"--template_location={gcs_bucket}/template.json",
            "--sdk_container_image=example/vqbeam:1",
            "--resource_hints=accelerator=type:nvidia-l4;count:1",
            "--no_auth",
        ]
    )
    pipeline = beam.Pipeline(options=options)
    shards = (
        pipeline | beam.Create(shard_ranges(range(5000)), reshuffle=False) | beam.FlatMap(lambda pair: range(*pair))
    )
    _ = shards | ProcessShards(a_job(f"{gcs_bucket}/out"))
    pipeline.run()
    fs = fsspec.filesystem("gs", token="anon")
    template = fs.cat_file(f"{gcs_bucket}/template.json").decode()
    assert "example/vqbeam:1" in template
    assert len(template) < 1 << 20
    staged = b"".join(fs.cat_file(path) for path in fs.find(f"{gcs_bucket}/staging"))
    assert b"ProcessShards" in staged
    assert b"nvidia-l4" in staged
