"""Engines that are not this machine's: what they need is looked for before anything is stored.

A job whose engine is not there, or whose workers cannot see its files, would fail minutes later in pages of a trace.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from pipelines import beam_flags
from pipelines.dataflow import NEEDS_VQBEAM
from pipelines.terminal import say
from transforms.errors import UsageError

REACH_SECONDS = 5.0  # for a service to take a connection and to answer
LOCAL_RUNNERS = ("fnapirunner", "directrunner", "bundlebaseddirectrunner", "switchingdirectrunner")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0")
MODELS = ("model", "vqgan", "clip", "bart")
MAGIC_MASTERS = ("[local]", "[auto]", "[collection]")  # of Flink: no address
DASK = "daskrunner"
JARS = {
    "flinkrunner": ("flink_job_server_jar", "beam-runners-flink-{version}-job-server"),
    "sparkrunner": ("spark_job_server_jar", "beam-runners-spark-3-job-server"),
}
MAVEN = "https://repo.maven.apache.org/maven2/org/apache/beam"
KEPT = "~/.apache_beam/cache"  # where Beam keeps jars, and Prism: known without its imports
NEEDS_ENVIRONMENT = (
    "; or --environment_type, if vqbeam is installed where the workers run: EXTERNAL or PROCESS on machines of a "
    "cluster, LOOPBACK for workers in this process"
)


def check(args: argparse.Namespace, beam_args: list[str]) -> None:
    """Raise `UsageError` if the engine that `beam_args` name is not there, or cannot do this job. Dataflow's own
    module looks at what else that needs."""
    options = beam_flags.options(beam_args)
    if options.streaming:
        raise UsageError("--streaming: a job of vqbeam ends; leave it out")
    runner = options.runner
    name = bare(runner) if runner else ""
    if name not in ("", *LOCAL_RUNNERS) and not args.output:
        raise UsageError(f"{runner} needs --output, a folder that its workers can reach")
    if name == DASK:
        _check_dask(args, beam_args)
    if name not in ("portablerunner", "prismrunner", *JARS):
        return
    if options.job_endpoint:
        if options.job_endpoint != "embed":
            check_answers(options.job_endpoint, "--job_endpoint")
    elif name == "portablerunner":
        raise UsageError("PortableRunner needs --job_endpoint HOST:PORT of a job service, or embed")
    elif name == "prismrunner":
        _check_prism(options)
    else:
        _check_job_server(name, str(runner), options)
    check_vqbeam_is_shipped(options, str(runner))
    _check_places(args, options, name)


def is_local(beam_args: list[str]) -> bool:
    """Whether the pipeline runs on this machine, under our own control."""
    return runner_name(beam_args) in (None, *LOCAL_RUNNERS)


def runner_name(beam_args: list[str]) -> str | None:
    """ "dataflowrunner" for "--runner DataflowRunner", however it is written; None if no runner is named."""
    runner = beam_flags.options(beam_args).runner if beam_args else None
    return None if runner is None else bare(runner)


def bare(runner: str) -> str:
    """ "fnapirunner" for "FnApiRunner", "fnapi" and "apache_beam.runners...FnApiRunner"."""
    name = runner.rpartition(".")[2].lower()
    return name if name.endswith("runner") else name + "runner"


def check_vqbeam_is_shipped(options: argparse.Namespace, runner: str) -> None:
    """Raise `UsageError` if workers would run in containers that nothing brings vqbeam into."""
    name = bare(runner)
    image = options.sdk_container_image
    shipped = (image, options.setup_file, options.extra_packages, options.requirements_file)
    if (name == "dataflowrunner" or in_containers(options, name)) and not any(shipped):
        portable = "" if name == "dataflowrunner" else NEEDS_ENVIRONMENT
        raise UsageError(NEEDS_VQBEAM.format(runner=runner) + portable)


def in_containers(options: argparse.Namespace, name: str) -> bool:
    """Whether an engine with Beam's job service would start workers in Docker, which is Beam's default."""
    if name not in ("portablerunner", *JARS) and not (name == "prismrunner" and options.environment_type):
        return False
    return options.environment_type in (None, "DOCKER") and not options.environment_config


def check_answers(address: str, flag: str) -> None:
    """Raise `UsageError` unless a gRPC service answers at HOST:PORT. `flag` is what names it."""
    import grpc

    deadline = time.monotonic() + REACH_SECONDS
    _check_connects(address, flag)
    channel = grpc.insecure_channel(address)
    try:
        grpc.channel_ready_future(channel).result(max(0.0, deadline - time.monotonic()))
    except grpc.FutureTimeoutError as error:
        raise UsageError(f"{flag} {address}: something listens there that is no job service of Beam") from error
    finally:
        channel.close()


def _check_connects(address: str, flag: str) -> None:
    """Raise `UsageError` unless something takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{flag} {address}: expected HOST:PORT")
    connecting = ThreadPoolExecutor(1)  # a name may take long to look up, and have several addresses
    try:
        place = (host.strip("[]"), int(port))
        connecting.submit(lambda: socket.create_connection(place, REACH_SECONDS).close()).result(REACH_SECONDS)
    except (OSError, OverflowError, FutureTimeoutError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise UsageError(f"{flag} {address} cannot be reached ({why}): is the service running there?") from error
    finally:
        connecting.shutdown(wait=False)


def _check_dask(args: argparse.Namespace, beam_args: list[str]) -> None:
    """Its scheduler, its workers, and whether they may be on other machines."""
    beam_flags.import_runner(beam_flags.runner_class(DASK))
    from pipelines import dask_cluster  # which imports Beam, as its runner does

    _warn_of_places(list(_local_places(args)), [dask_cluster.check(beam_args, REACH_SECONDS)])


def _check_prism(options: argparse.Namespace) -> None:
    location = options.prism_location
    if location:
        if "://" not in location and not Path(location).is_file():
            raise UsageError(f"--prism_location {location} is no file")
        return
    version = metadata.version("apache-beam")
    if not any(Path(KEPT, "prism", "bin").expanduser().glob(f"*v{version}*")):
        raise UsageError(
            f"Prism is not here: give --prism_location, the binary that `go install "
            f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version}` makes, or an address of one to download"
        )


def _check_job_server(name: str, runner: str, options: argparse.Namespace) -> None:
    """A job server that Beam would start: its jar, Java, and the master that it talks to."""
    flag, jar = "--flink_master", options.flink_job_server_jar
    master, uploads = options.flink_master, options.flink_submit_uber_jar
    if name == "sparkrunner":
        flag, jar = "--spark_master_url", options.spark_job_server_jar
        master, uploads = options.spark_master_url, options.spark_submit_uber_jar
    _check_jar(name, runner, jar, options)
    java = options.job_server_java_launcher
    if not uploads and shutil.which(java) is None:
        raise UsageError(f"the job server of {runner} needs Java, and there is no {java} (--job_server_java_launcher)")
    address = address_of(master)
    if address:
        _check_connects(address, flag)


def address_of(master: str) -> str | None:
    """HOST:PORT of a master of Flink or Spark; None for one that is no address, such as local[4] or [auto]."""
    if master in MAGIC_MASTERS or re.match(r"(local|yarn|k8s)\b", master):
        return None
    return urlsplit(master if "://" in master else f"//{master}").netloc.partition(",")[0]


def _check_jar(name: str, runner: str, jar: str | None, options: argparse.Namespace) -> None:
    flag, known_as = JARS[name]
    if jar:
        if "://" not in jar and not Path(jar).is_file():
            raise UsageError(f"--{flag} {jar} is no file")
        return
    version = metadata.version("apache-beam")
    kept = Path(options.jar_cache_dir or f"{KEPT}/jars").expanduser()
    if not any(kept.glob(f"{known_as.format(version=options.flink_version or '*')}-{version}.jar")):
        jar = known_as.format(version=options.flink_version or "VERSION")
        raise UsageError(
            f"{runner} needs a job server: give --job_endpoint HOST:PORT of one that runs, or --{flag} with the jar, "
            f"which is {MAVEN}/{jar}/{version}/{jar}-{version}.jar"
        )


def _check_places(args: argparse.Namespace, options: argparse.Namespace, name: str) -> None:
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
    masters = (options.job_endpoint, address_of(options.flink_master), address_of(options.spark_master_url))
    if options.environment_type != "LOOPBACK":
        _warn_of_places(here, masters)


def _warn_of_places(here: list[tuple[str, str]], masters: Iterable[str | None]) -> None:
    """Tell of a path of this machine if one of the `masters`, each HOST:PORT, is on another."""
    far = [at for at in masters if at and at != "embed" and at.rpartition(":")[0] not in LOCAL_NAMES]
    if here and far:
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
