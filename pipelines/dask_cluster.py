"""A cluster of Dask: whether it is there and can do the job, which is asked before anything is stored."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.engine_errors import one_line
from transforms.engine.versions import versions_here
from transforms.errors import UsageError


def check(beam_args: list[str], seconds: float) -> str | None:
    """Raise `UsageError` if no scheduler answers within `seconds`, or its workers have no vqbeam.

    Returns HOST:PORT of the scheduler; None for another protocol than TCP, or if Dask is to make a cluster of this
    machine, which it does if there is no address.
    """
    import dask
    from distributed import Client

    asked = client_options(beam_args)
    given, file = asked.get("address") or dask.config.get("scheduler-address", None), asked.get("scheduler_file")
    if not given and not file:
        return None
    flag = f"--dask_client_address {given}" if given else f"--dask_scheduler_file {file}"
    protocol, _, place = str(given or _address_in(str(file))).rpartition("://")
    if protocol in ("", "tcp"):
        _check_speaks(place, flag, seconds)
    try:
        client = Client(**{**asked, "timeout": seconds}, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = one_line(str(error.__cause__ or error))
        raise UsageError(f"{flag}: no scheduler of Dask answers there ({why})") from error
    with client:
        answers = client.run(versions_here, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, Exception) and not isinstance(answer, OSError):  # that one is lost, not unfit
            raise UsageError(f"{flag}: {one_line(str(answer))} ({worker})")
    return place if protocol in ("", "tcp") else None


def client_options(beam_args: list[str]) -> Mapping[str, Any]:
    """How Beam's runner opens its client."""
    from apache_beam.runners.dask.dask_runner import DaskOptions

    options = PipelineOptions(beam_args).view_as(DaskOptions)
    asked: dict[str, Any] = options.get_all_options(drop_default=True, current_only=True)
    return {name: value for name, value in asked.items() if name not in ("npartitions", "partition_size")}


def _address_in(file: str) -> str:
    """The address in a file that a scheduler wrote."""
    try:
        return str(json.loads(Path(file).read_text(encoding="utf-8"))["address"])
    except FileNotFoundError as error:
        raise UsageError(f"--dask_scheduler_file {file} is no file") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--dask_scheduler_file {file} holds no address of a scheduler ({error})") from error


def _check_speaks(place: str, flag: str, seconds: float) -> None:
    """Raise `UsageError` unless something at HOST:PORT speaks first, as Dask does, whose client would wait for ever."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{flag}: expected HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            connection.settimeout(seconds)
            spoke = connection.recv(1)
    except TimeoutError:
        spoke = b""
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{flag} cannot be reached ({why}): does the scheduler run there?") from error
    if not spoke:
        raise UsageError(f"{flag}: no scheduler of Dask answers there")
