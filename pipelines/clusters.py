"""What Flink and Spark are told of a plan: without it, Flink works in one slot, and Spark in two partitions.

Nothing here is needed for right output; all of it was seen on clusters of two workers (docs/runners.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipelines.engines import LOCAL_NAMES, address_of, bare
from pipelines.terminal import say
from transforms.errors import amount

ASK_SECONDS = 3.0  # for a question to a cluster; without an answer its defaults hold
CACHE_MILLIS = 60_000  # Python workers are kept so long between two stages
SPARK_PARALLELISM = "spark.default.parallelism"
MASTERS = {"flink": ("flink_master", "flinkMaster"), "spark": ("spark_master_url", "spark_master", "sparkMaster")}


def for_plan(beam_args: list[str], pending: int) -> list[str]:
    """The flags of Beam with those that follow from `pending` shards, unless given; tells what a cluster lacks."""
    options = PipelineOptions(beam_args)
    engine = _engine(options)
    if engine is None:
        return beam_args
    added = []
    if not int(options.view_as(PortableOptions).environment_cache_millis or 0):
        added.append(f"--environment_cache_millis={CACHE_MILLIS}")
    added += _for_flink(options, pending) if engine == "flink" else _for_spark(options, pending)
    return [*beam_args, *added]


def _engine(options: PipelineOptions) -> str | None:
    """ "flink" or "spark"; None if it is another one, or there is no telling."""
    name = bare(options.view_as(StandardOptions).runner or "")
    endpoint = options.view_as(PortableOptions).job_endpoint
    if name in ("flinkrunner", "sparkrunner"):
        return name.removesuffix("runner")
    if name != "portablerunner" or endpoint in (None, "embed"):
        return None
    with suppress(grpc.RpcError), grpc.insecure_channel(endpoint) as channel:
        asked = beam_job_api_pb2.DescribePipelineOptionsRequest()
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        known = {option.name for option in stub.DescribePipelineOptions(asked, timeout=ASK_SECONDS).options}
        return next((engine for engine, names in MASTERS.items() if known.intersection(names)), None)
    return None


def _for_flink(options: PipelineOptions, pending: int) -> Iterator[str]:
    flink = options.view_as(FlinkRunnerOptions)
    master = address_of(flink.flink_master)
    overview = asked(master, "overview") or {}
    slots = overview.get("slots-available") or overview.get("slots-total")
    several = overview.get("taskmanagers", 2) > 1
    if flink.parallelism < 1:
        if slots:
            yield f"--parallelism={max(1, min(pending, slots))}"
        elif master or flink.flink_master == "[auto]":
            _warn("Flink does all shards in one slot unless --parallelism gives the number of slots of the cluster")
    elif slots and flink.parallelism > overview.get("slots-total", slots):
        total = amount(overview.get("slots-total", slots), "slots")
        _warn(f"--parallelism {flink.parallelism} needs more than the {total} of the cluster: the job would wait")
    if several and _one_pool(options):
        _warn(
            "with several TaskManagers, Flink fails a job whose workers are one pool (LOOPBACK, or EXTERNAL at one "
            "address) after its work is done: give each host a pool, EXTERNAL at localhost:PORT, or use PROCESS"
        )
    configured = asked(master, "jobmanager/config")
    if configured is not None and not any(
        str(item.get("key", "")).startswith("restart-strategy") for item in configured
    ):
        _warn(
            "Flink's configuration has no restart-strategy.type: a lost TaskManager or worker ends the job, and the "
            "same command resumes it; with fixed-delay Flink goes on by itself"
        )


def _for_spark(options: PipelineOptions, pending: int) -> Iterator[str]:
    given = options.view_as(JobServerOptions).job_server_jvm_properties or ()
    if any(SPARK_PARALLELISM in item for item in given):
        return
    if options.view_as(PortableOptions).job_endpoint:
        _warn(
            f"Spark does all shards in two partitions unless its job server was started with -D{SPARK_PARALLELISM}=N: "
            f"{amount(pending, 'shards')} are to be done"
        )
    else:
        yield f"--job_server_jvm_properties=-D{SPARK_PARALLELISM}={pending}"


def _one_pool(options: PipelineOptions) -> bool:
    """Whether all machines of a cluster would get their workers from one pool."""
    portable = options.view_as(PortableOptions)
    if portable.environment_type == "LOOPBACK":
        return True
    address = portable.environment_config or portable.lookup_environment_option("external_service_address", "")
    host = str(address).rpartition(":")[0].rpartition("/")[2]
    return portable.environment_type == "EXTERNAL" and host not in LOCAL_NAMES


def asked(master: str | None, what: str) -> Any:
    """What Flink's web interface says; None without an answer."""
    if master is None:
        return None
    with suppress(OSError, ValueError), urlopen(f"http://{master}/{what}", timeout=ASK_SECONDS) as answer:
        return json.load(answer)
    return None


def _warn(text: str) -> None:
    say(f"warning: {text}", file=sys.stderr)
