"""Engines that are not this machine's: what they need is looked for before anything is stored.

A job whose engine is not there, or whose workers cannot see its files, would fail minutes later in pages of a trace.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.dataflow import NEEDS_VQBEAM
from pipelines.terminal import say
from transforms.errors import UsageError

REACH_SECONDS = 8.0  # for a service that neither takes nor refuses a connection
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0")
MODELS = ("model", "vqgan", "clip", "bart")
MAGIC_MASTERS = ("[local]", "[auto]", "[collection]")  # of Flink: no address
JARS = {
    "flinkrunner": ("flink_job_server_jar", "runners:flink:{version}:job-server"),
    "sparkrunner": ("spark_job_server_jar", "runners:spark:3:job-server"),
}
NEEDS_ENVIRONMENT = (
    "; or --environment_type, if vqbeam is installed where the workers run: EXTERNAL or PROCESS on machines of a "
    "cluster, LOOPBACK for workers in this process"
)


def check(args: argparse.Namespace, beam_args: list[str]) -> None:
    """Raise `UsageError` if the engine that `beam_args` name is not there, or cannot do this job. Dataflow's own
    module looks at what that needs."""
    options = PipelineOptions(beam_args)
    if options.view_as(StandardOptions).streaming:
        raise UsageError("--streaming: a job of vqbeam ends; leave it out")
    runner = options.view_as(StandardOptions).runner
    name = bare(runner) if runner else ""
    portable = options.view_as(PortableOptions)
    if name not in ("portablerunner", "prismrunner", *JARS):
        return
    if not args.output:
        raise UsageError(f"{runner} needs --output, a folder that its workers can reach")
    if portable.job_endpoint:
        if portable.job_endpoint != "embed":
            _check_answers(portable.job_endpoint, "--job_endpoint")
    elif name == "portablerunner":
        raise UsageError("PortableRunner needs --job_endpoint HOST:PORT of a job service, or embed")
    elif name == "prismrunner":
        _check_prism(options)
    else:
        _check_job_server(name, str(runner), options)
    check_vqbeam_is_shipped(options, str(runner))
    _check_places(args, options, name)


def bare(runner: str) -> str:
    """ "fnapirunner" for "FnApiRunner", "fnapi" and "apache_beam.runners...FnApiRunner"."""
    name = runner.rpartition(".")[2].lower()
    return name if name.endswith("runner") else name + "runner"


def check_vqbeam_is_shipped(options: PipelineOptions, runner: str) -> None:
    """Raise `UsageError` if workers would run in containers that nothing brings vqbeam into."""
    setup, name = options.view_as(SetupOptions), bare(runner)
    image = options.view_as(WorkerOptions).sdk_container_image
    shipped = (image, setup.setup_file, setup.extra_packages, setup.requirements_file)
    if (name == "dataflowrunner" or in_containers(options, name)) and not any(shipped):
        portable = "" if name == "dataflowrunner" else NEEDS_ENVIRONMENT
        raise UsageError(NEEDS_VQBEAM.format(runner=runner) + portable)


def in_containers(options: PipelineOptions, name: str) -> bool:
    """Whether an engine with Beam's job service would start workers in Docker, which is Beam's default."""
    portable = options.view_as(PortableOptions)
    if name not in ("portablerunner", *JARS) and not (name == "prismrunner" and portable.environment_type):
        return False
    return portable.environment_type in (None, "DOCKER") and not portable.environment_config


def _check_answers(address: str, flag: str) -> None:
    """Raise `UsageError` unless a gRPC service answers at HOST:PORT."""
    import grpc

    _check_connects(address, flag)
    channel = grpc.insecure_channel(address)
    try:
        grpc.channel_ready_future(channel).result(REACH_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise UsageError(f"{flag} {address}: something listens there that is no job service of Beam") from error
    finally:
        channel.close()


def _check_connects(address: str, flag: str) -> None:
    """Raise `UsageError` unless something takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{flag} {address}: expected HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{flag} {address} cannot be reached ({why}): is the service running there?") from error


def _check_prism(options: PipelineOptions) -> None:
    location = options.view_as(PrismRunnerOptions).prism_location
    if location:
        if "://" not in location and not Path(location).is_file():
            raise UsageError(f"--prism_location {location} is no file")
        return
    from apache_beam.runners.portability.prism_runner import PrismJobServer
    from apache_beam.version import __version__ as version

    kept = Path(PrismJobServer.BIN_CACHE)
    if not any(kept.glob(f"*v{version}*")):
        raise UsageError(
            f"Prism is not here: give --prism_location, the binary that `go install "
            f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version}` makes, or an address of one to download"
        )


def _check_job_server(name: str, runner: str, options: PipelineOptions) -> None:
    """A job server that Beam would start: its jar, Java, and the master that it talks to."""
    flink, spark = options.view_as(FlinkRunnerOptions), options.view_as(SparkRunnerOptions)
    flag, jar = "--flink_master", flink.flink_job_server_jar
    master, uploads = flink.flink_master, flink.flink_submit_uber_jar
    if name == "sparkrunner":
        flag, jar = "--spark_master_url", spark.spark_job_server_jar
        master, uploads = spark.spark_master_url, spark.spark_submit_uber_jar
    _check_jar(name, runner, jar, options)
    java = options.view_as(JobServerOptions).job_server_java_launcher
    if not uploads and shutil.which(java) is None:
        raise UsageError(f"the job server of {runner} needs Java, and there is no {java} (--job_server_java_launcher)")
    address = address_of(master)
    if address and not uploads:
        _check_connects(address, flag)


def address_of(master: str) -> str | None:
    """HOST:PORT of a master of Flink or Spark; None for one that is no address, such as local[4] or [auto]."""
    if master in MAGIC_MASTERS or re.match(r"(local|yarn|k8s)\b", master):
        return None
    return urlsplit(master if "://" in master else f"//{master}").netloc.partition(",")[0]


def _check_jar(name: str, runner: str, jar: str | None, options: PipelineOptions) -> None:
    from apache_beam.utils.subprocess_server import JavaJarServer

    flag, target = JARS[name]
    if jar:
        if "://" not in jar and not Path(jar).is_file():
            raise UsageError(f"--{flag} {jar} is no file")
        return
    target = target.format(version=options.view_as(FlinkRunnerOptions).flink_version)
    where = JavaJarServer.path_to_beam_jar(f":{target}:shadowJar")
    kept = options.view_as(JobServerOptions).jar_cache_dir or JavaJarServer.JAR_CACHE
    if not Path(where).is_file() and not Path(kept, Path(where).name).is_file():
        raise UsageError(
            f"{runner} needs a job server: give --job_endpoint HOST:PORT of one that runs, or --{flag} with the jar, "
            f"which is {where}"
        )


def _check_places(args: argparse.Namespace, options: PipelineOptions, name: str) -> None:
    """Workers in containers see no files of this machine; other machines see them only where they share them."""
    here = list(_local_places(args))
    if not here:
        return
    if in_containers(options, name):
        flag, path = here[0]
        raise UsageError(
            f"{flag} {path} is on this machine, where workers in containers cannot see it: use an object store, or "
            "another --environment_type than DOCKER"
        )
    flink, spark = options.view_as(FlinkRunnerOptions), options.view_as(SparkRunnerOptions)
    masters = [options.view_as(PortableOptions).job_endpoint, address_of(flink.flink_master)]
    masters.append(address_of(spark.spark_master_url))
    far = [at for at in masters if at and at != "embed" and at.rpartition(":")[0] not in LOCAL_NAMES]
    if far and options.view_as(PortableOptions).environment_type != "LOOPBACK":
        flag, path = here[0]
        say(
            f"warning: {flag} {path} is a path of this machine: the workers of {far[0]} must see the same files there",
            file=sys.stderr,
        )


def _local_places(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The flags that name files of this machine, with their values."""
    named = [("--output", args.output), *(("--input", pattern) for pattern in getattr(args, "patterns", None) or ())]
    for flag, value in named:
        if _is_local(value):
            yield flag, value
    models = [vars(args), *(getattr(args, "models", None) or ())]
    for said in models:
        for role in MODELS:
            model = said.get(role)
            if isinstance(model, str) and model != "emoji" and _is_local(model):
                yield f"--{role}", model


def _is_local(name: str) -> bool:
    """Whether a name is a path of this machine; without asking its store, which may take long to say who it is."""
    return "://" not in name or name.startswith(("file://", "local://"))
