"""A worker process of a local run with several processes: Beam's own worker, as a well-behaved child.

It finds modules on the launcher's path, leaves Ctrl-C and SIGTERM to the launcher, and ends when the
launcher is gone. `pipelines.launch` starts it as `python local_worker.py SCRATCH_FOLDER`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

PATH_FILE = "sys_path.json"
MARK = "worker-"  # plus the process number: a file that a worker removes when it ends in good order
LOOK_SECONDS = 0.5


def worker_command(scratch: str) -> str:
    """The shell command that starts a worker; stores for it the path on which this process finds modules."""
    path = [os.path.abspath(entry) for entry in sys.path]
    Path(scratch, PATH_FILE).write_text(json.dumps(path), encoding="utf-8")
    return f"trap '' INT TERM; exec {shlex.join([sys.executable, os.path.abspath(__file__), scratch])}"


def worker_pids(scratch: str) -> list[int]:
    """Process numbers of the workers that have started and have not ended in good order."""
    return [int(path.name[len(MARK) :]) for path in Path(scratch).glob(MARK + "*")]


def main(scratch: str) -> None:
    """Works for the launcher that owns `scratch` until it says that it is done."""
    mark = Path(scratch, f"{MARK}{os.getpid()}")
    mark.touch()
    launcher = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.path[:] = json.loads(Path(scratch, PATH_FILE).read_text(encoding="utf-8"))
    from pipelines.lean_imports import resting_collector, without_optional
    from pipelines.process import SILENT, quiet_logging, reuse_freed_memory
    from pipelines.supervisor import end_with

    reuse_freed_memory()
    end_with(launcher)

    import grpc

    quiet_logging(prefix="worker: ", beam_level=SILENT)
    os.environ.pop("LOGGING_API_SERVICE_DESCRIPTOR", None)  # Beam would send every line to the launcher as well
    with resting_collector(), without_optional():
        from apache_beam.runners.worker import sdk_worker_main

        from transforms.engine import beam  # noqa: F401 - as the job will, with torch
    from transforms.engine.monitor import shards_in_flight

    # What a pipeline raises goes to the launcher; what is raised here says that the launcher has gone.
    threading.excepthook = lambda args: None
    try:
        sdk_worker_main.main([])
        code = 0
    except grpc.RpcError:
        code = 1
    while shards_in_flight(scratch, [os.getpid()]):  # Beam ends all workers if another is lost; the launcher waits
        time.sleep(LOOK_SECONDS)
    mark.unlink(missing_ok=True)
    if code:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
