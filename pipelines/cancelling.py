"""What a person types to cancel a job that goes on without its command."""

from __future__ import annotations

from typing import Any

from pipelines import beam_flags
from pipelines.clusters import asked
from pipelines.engines import DASK, JARS, address_of, bare

ENDED = ("FINISHED", "CANCELED", "FAILED")  # states of Flink's jobs


def how_to_cancel(beam_args: list[str], job: str | None, *, answers: bool, at_once: bool = False) -> str:
    """The end of a sentence about a job that may go on. `job` is its id in Beam's job service, None if it is not known;
    `answers`: that service still does. `at_once`: no cluster is asked for anything."""
    options = beam_flags.options(beam_args)
    name, endpoint = bare(options.runner or ""), options.job_endpoint
    if endpoint not in (None, "embed") and answers:
        if job:
            return f"`vqbeam jobs {endpoint} --cancel {job}` cancels it"
        return f"`vqbeam jobs {endpoint}` lists the jobs, with `--cancel JOB` it cancels one"
    master = address_of(options.flink_master)
    if name == "flinkrunner" and master:
        return _on_flink(master, None if at_once else asked(master, "jobs/overview"))
    if name == "sparkrunner" and options.spark_submit_uber_jar:
        master = address_of(options.spark_master_url)
        return f"`spark-submit --master spark://{master} --kill ID` cancels it, by the id in Spark's web interface"
    if name == DASK:
        return "its workers finish the shards that they are at, and begin none"
    if name not in ("portablerunner", "prismrunner", *JARS):
        return "cancel it where the engine shows its jobs"
    if endpoint in (None, "embed"):
        return "it ends with its job server, which this command started and ends"
    return f"on Flink {_on_flink('JOBMANAGER:8081', None)}; on Spark it ends with its job service"


def _on_flink(master: str, overview: dict[str, Any] | None) -> str:
    running = [job["jid"] for job in (overview or {}).get("jobs", ()) if job.get("state") not in ENDED]
    if len(running) == 1:
        return f"`curl -X PATCH http://{master}/jobs/{running[0]}` cancels it"
    return f"`curl http://{master}/jobs/overview` lists the jobs, `curl -X PATCH http://{master}/jobs/JID` cancels one"
