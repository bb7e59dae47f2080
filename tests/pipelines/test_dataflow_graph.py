"""The job that Dataflow would get of every command: the graph, its environment and its workers, read from the proto."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as proto

from pipelines import dataflow_job
from pipelines.accelerators import GPUS, Gpu
from tests.support.paths import ROOT, SAMPLE
from tests.support.run_command import run
from transforms.engine.beam import ProcessShards
from transforms.engine.job import Job

apiclient = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs apache-beam[gcp]")
pytestmark = pytest.mark.usefixtures("no_credentials")

PREFIX = "ProcessShards/"
IMAGE = "us-docker.pkg.dev/my-project/images/vqbeam:1"
COMMANDS = {
    "encode": ("--input", "BUCKET/pairs/*.tar", "--limit", "6"),
    "decode": ("--input", "BUCKET/tokens/*.parquet"),
    "generate": ("--prompt", "a red apple", "--clip", "emoji"),
    "vary": ("--input", "BUCKET/tokens/*.parquet"),
    "rank": ("--input", "BUCKET/pairs/*.tar", "--limit", "6", "--clip", "emoji"),
    "evaluate": ("--input", "BUCKET/pairs/*.tar", "--limit", "6"),
    "export": ("--input", "BUCKET/tokens/*.parquet"),
}


@dataclass(frozen=True)
class Asked:
    """What the service would be asked for: the graph, the machines, what each worker is told, and the files of the
    package that is shipped."""

    graph: proto.Pipeline
    environment: Any
    job: Job
    shipped: frozenset[str]

    @property
    def pool(self) -> Any:
        (pool,) = self.environment.worker_pools
        return pool

    def steps(self, urn: str) -> list[str]:
        """The names of the steps of a kind."""
        found = self.graph.components.transforms.values()
        return sorted(step.unique_name for step in found if step.spec.urn == urn)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # else Beam looks for some for 20 s


@pytest.fixture(scope="module")
def bucket(gcs_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With images and their tokens."""
    fs = fsspec.filesystem("gs")
    tar = SAMPLE / "emoji-00000.tar"
    fs.pipe_file(f"{gcs_bucket}/pairs/00000.tar", tar.read_bytes())
    made = run("encode", "--input", tar, "--limit", "6", "--device", "cpu", output=tmp_path_factory.mktemp("t") / "t")
    assert made.code == 0, made.err
    fs.pipe_file(f"{gcs_bucket}/tokens/00000.parquet", made.read("data/00000.parquet"))
    return gcs_bucket


def shipped_files(graph: proto.Pipeline) -> frozenset[str]:
    """What is in the sdist of a --setup_file."""
    (environment,) = graph.components.environments.values()
    for file in environment.dependencies:
        name = proto.ArtifactStagingToRolePayload.FromString(file.role_payload).staged_name
        if name == "workflow.tar.gz":
            with tarfile.open(proto.ArtifactFilePayload.FromString(file.type_payload).path) as tar:
                return frozenset(member.partition("/")[2] for member in tar.getnames())
    return frozenset()


@pytest.fixture
def asked(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    def ask(command: str, *flags: str, shipped: tuple[str, ...] = ("--sdk_container_image", IMAGE)) -> Asked:
        described: list[Any] = []
        jobs: list[Job] = []
        submit = dataflow_job._submitted

        def submitted(pipeline: Any) -> Any:
            result = submit(pipeline)
            described.append((result.job, shipped_files(result.job.proto_pipeline)))
            return result

        def process(job: Job) -> ProcessShards:
            jobs.append(job)
            return ProcessShards(job)

        monkeypatch.setattr(dataflow_job, "_submitted", submitted)
        monkeypatch.setattr("pipelines.pending.ProcessShards", process)
        source = [word.replace("BUCKET", bucket) for word in COMMANDS[command]]
        done = run(
            *(command, *source, *flags, *shipped, "--runner", "DataflowRunner", "--project", "my-project"),
            *("--region", "us-central1", "--temp_location", f"{bucket}/tmp", "--staging_location", f"{bucket}/stage"),
            *("--output", f"{bucket}/{tmp_path.name}", "--no_auth", "--", "--dry_run=True"),
        )
        assert done.code == 0, done.err
        ((job, files),), (told,) = described, jobs
        environment = apiclient.Environment([], job.options, "8", "gs://x", job.proto_pipeline).proto
        return Asked(job.proto_pipeline, environment, told, files)

    return ask


@pytest.mark.parametrize("command", COMMANDS)
def test_only_numbers_and_reports_are_shuffled(command: str, asked: Callable[..., Asked]) -> None:
    flags = () if command == "export" else ("--accelerator", "nvidia-l4:1")
    described = asked(command, *flags)
    graph, steps = described.graph, described.graph.components.transforms
    assert described.steps(common_urns.primitives.GROUP_BY_KEY.urn) == [
        f"{PREFIX}Spread/ReshufflePerKey/GroupByKey",
        f"{PREFIX}Summarise/CombinePerKey/GroupByKey",
        f"{PREFIX}Together",
    ]
    # The numbers of shards come from the graph itself, and one ParDo is between their shuffle and that of reports.
    par_dos = described.steps(common_urns.primitives.PAR_DO.urn)
    assert [name for name in par_dos if "Summarise" not in name and "Spread" not in name and "Plan" not in name] == [
        f"{PREFIX}Block",
        f"{PREFIX}Digest",
        f"{PREFIX}Finish",
        f"{PREFIX}Process",
        "Shards",
    ]
    (process,) = (step for step in steps.values() if step.unique_name == f"{PREFIX}Process")
    assert len(process.outputs) == 1
    assert len(process.inputs) == 1
    coders = {graph.components.pcollections[name].coder_id for name in process.inputs.values()}
    assert [graph.components.coders[name].spec.urn for name in coders] == [common_urns.coders.VARINT.urn]
    used = {step.environment_id for step in steps.values() if step.environment_id}
    assert len(used) == 1
    environments = [graph.components.environments[name] for name in used]
    payloads = [proto.DockerPayload.FromString(environment.payload) for environment in environments]
    assert [payload.container_image for payload in payloads] == [IMAGE]
    assert [dict(environment.resource_hints) for environment in environments] == [{}]
    assert described.pool.worker_harness_container_image == IMAGE
    assert len(graph.SerializeToString()) < 1 << 20


def test_a_worker_with_gpus_is_one_process_with_a_shard_on_each(asked: Callable[..., Asked]) -> None:
    described = asked("encode", "--accelerator", "nvidia-l4:4")
    environment, pool = described.environment, described.pool
    assert list(environment.service_options) == [
        "worker_accelerator=type:nvidia-l4;count:4;install-nvidia-driver",
    ]
    assert "no_use_multiple_sdk_containers" in environment.experiments
    assert "use_multiple_sdk_containers" not in environment.experiments
    assert (pool.machine_type, pool.num_threads_per_worker) == ("g2-standard-48", 4)
    assert (pool.num_workers, pool.autoscaling_settings.max_num_workers) == (1, 1)
    options = dict(environment.sdk_pipeline_options)["options"]
    assert options["element_processing_timeout_minutes"] == 120
    job = described.job
    assert (job.device, job.processes, job.decode_threads) == ("cuda", 1, 48)
    model = job.work.model  # type: ignore[attr-defined]
    assert (model.device, model.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize(("command", "share"), [("encode", 1e-5), ("generate", 1e-3)])
def test_slower_gpus_get_shorter_shards_and_old_ones_no_bfloat16(
    command: str, share: float, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a `share` of their speeds: with the small embedded model all would do the most rows."""
    speeds = {gpu: gpu.flops for gpu in GPUS.values()}
    monkeypatch.setattr(Gpu, "flops", property(lambda gpu: share * speeds[gpu]))

    def told(kind: str, *flags: str) -> tuple[dict[str, Any], str]:
        done = run(
            *(command, *(word.replace("BUCKET", bucket) for word in COMMANDS[command])),
            *("--accelerator", f"{kind}:1", "--runner", "DataflowRunner", "--project", "my-project"),
            *("--region", "us-central1", "--temp_location", f"{bucket}/tmp", "--sdk_container_image", IMAGE),
            *("--output", f"{bucket}/{tmp_path.name}", "--batch_size", "8", "--no_auth", "--dry_run", "--json", *flags),
        )
        assert done.code == 0, done.err
        return json.loads(done.out), done.err

    found = [told(kind) for kind in ("nvidia-h100-80gb", "nvidia-l4", "nvidia-tesla-t4")]
    rows = [plan["rows_per_shard"] for plan, _ in found]
    assert rows[0] > rows[1] > rows[2]
    assert [plan["dtype"] for plan, _ in found] == ["bfloat16", "bfloat16", "float32"]
    assert ["--dtype auto is float32" in said for _, said in found] == [False, False, True]
    plan, said = told("nvidia-tesla-v100", "--dtype", "bf16")
    assert plan["dtype"] == "bfloat16"
    assert "warning: this kind of GPU has no arithmetic for bfloat16" in said
    assert ["the image needs one for CUDA 12" in said for _, said in (*found, (plan, said))] == [
        False,
        False,
        False,
        True,
    ]
    assert told("nvidia-tesla-v100", "--dtype", "fastest")[0]["dtype"] == "float16"


def test_what_the_user_gives_stays(asked: Callable[..., Asked]) -> None:
    described = asked(
        *("encode", "--accelerator", "nvidia-l4:1", "--machine_type", "g2-standard-16", "--dtype", "float32"),
        *("--num_workers", "3", "--max_num_workers", "5", "--number_of_worker_harness_threads", "2"),
        *("--element_processing_timeout_minutes", "7", "--job_name", "mine", "--threads_per_worker", "6"),
    )
    pool = described.pool
    assert (pool.machine_type, pool.num_threads_per_worker) == ("g2-standard-16", 2)
    assert (pool.num_workers, pool.autoscaling_settings.max_num_workers) == (3, 5)
    assert dict(described.environment.sdk_pipeline_options)["options"]["element_processing_timeout_minutes"] == 7
    assert described.job.decode_threads == 6
    assert described.job.work.model.dtype == "float32"  # type: ignore[attr-defined]


def test_the_option_of_dataflow_itself_means_the_same(asked: Callable[..., Asked]) -> None:
    option = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:latest"
    described = asked("encode", "--dataflow_service_options", option)
    assert list(described.environment.service_options) == [option]
    assert "no_use_multiple_sdk_containers" in described.environment.experiments
    assert (described.job.device, described.pool.machine_type) == ("cuda", "g2-standard-8")


def test_without_gpus_a_process_does_one_shard_with_one_thread(asked: Callable[..., Asked]) -> None:
    described = asked("encode")
    assert described.pool.num_threads_per_worker == 1
    assert "no_use_multiple_sdk_containers" not in described.environment.experiments
    job = described.job
    assert (job.device, job.processes, job.decode_threads) == ("cpu", 1, 1)
    assert job.work.model.dtype == "float32"  # type: ignore[attr-defined]


def test_the_number_of_workers_follows_from_the_plan(asked: Callable[..., Asked]) -> None:
    described = asked("encode", "--accelerator", "nvidia-l4:1", "--limit", "120", "--rows_per_shard", "1")
    assert (described.pool.num_workers, described.pool.autoscaling_settings.max_num_workers) == (8, 30)


@pytest.mark.slow
def test_a_setup_file_ships_the_package_with_its_models(asked: Callable[..., Asked]) -> None:
    described = asked("encode", shipped=("--setup_file", str(ROOT / "setup.py")))
    wanted = {"models/emoji/model.safetensors", "transforms/engine/worker.py", "constraints.txt"}
    assert wanted | {f"transforms/report/page.{ending}" for ending in ("html", "css", "js")} <= described.shipped
