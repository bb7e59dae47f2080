"""A worker that an engine starts on its hosts, without a container: Beam's own worker, told where its engine is.

`--environment_type PROCESS` names `deploy/boot` on each host, which runs this in the environment that vqbeam is
installed in. It does what the boot program of Beam's container does, except for staged packages: those are there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

ENDPOINTS = ("control", "logging", "status")


def main(argv: Sequence[str] | None = None) -> None:
    """Works for the engine whose flags these are, until that lets go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--id", required=True)
    for name in ("provision", "artifact", *ENDPOINTS):
        parser.add_argument(f"--{name}_endpoint", default="")
    args, _ = parser.parse_known_args(argv)
    args.id = args.id.strip("'")  # Prism quotes it, though no shell takes the quotes away
    os.environ["WORKER_ID"] = args.id

    from pipelines.process import quiet_logging, reuse_freed_memory

    reuse_freed_memory()
    quiet_logging(prefix="worker: ")
    _take_provision(args)
    for name in ENDPOINTS:
        url = getattr(args, f"{name}_endpoint")
        if url:
            os.environ[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = f'url: "{url}"'
    if not args.control_endpoint:
        sys.exit("worker: the engine gives no control_endpoint")

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


def _take_provision(args: argparse.Namespace) -> None:
    """What the engine's provisioning service says: options of the pipeline, and endpoints that no flag gave."""
    if not args.provision_endpoint:
        return
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor
    from google.protobuf import json_format  # type: ignore[import-untyped]

    with grpc.insecure_channel(args.provision_endpoint) as plain:
        channel = grpc.intercept_channel(plain, WorkerIdInterceptor(args.id))
        asked = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(asked, timeout=60).info
    os.environ["PIPELINE_OPTIONS"] = json_format.MessageToJson(info.pipeline_options)
    os.environ["RUNNER_CAPABILITIES"] = " ".join(info.runner_capabilities)
    for name in ENDPOINTS:
        if not getattr(args, f"{name}_endpoint"):
            setattr(args, f"{name}_endpoint", getattr(info, f"{name}_endpoint").url)


if __name__ == "__main__":
    main()
