#!/usr/bin/env bash
# Apache Beam's DaskRunner loses rows without a word: what a DoFn yields in `finish_bundle` is dropped (of ten rows through
# BatchElements in batches of four, two), and of a step with a tagged output and a main one only the last consumer runs, which gets
# the rows of both. The job ends in state DONE. So steps on Dask have to be a chain of `process` methods with one output.
# Seen, apache-beam 2.77.0, dask and distributed 2026.8.0, Python 3.11, Linux x86-64:
#   batches: 4 + 4 of 10 rows
#   main: nothing, tagged: 0 1 2 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet apache-beam==2.77.0 dask==2026.8.0 distributed==2026.8.0
cat >"$work/job.py" <<'PYTHON'
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask.dask_runner import DaskRunner
from distributed import LocalCluster

HERE = Path(__file__).parent


def note(name):
    def write(value):
        with open(HERE / name, "a") as out:
            out.write(f"{value}\n")

    return write


def told(name):
    path = HERE / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def split(row):
    yield beam.pvalue.TaggedOutput("odd", row) if row % 2 else row


if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        options = PipelineOptions([f"--dask_client_address={cluster.scheduler_address}"])
        with beam.Pipeline(runner=DaskRunner(), options=options) as pipeline:
            batches = pipeline | beam.Create(range(10)) | beam.BatchElements(min_batch_size=4, max_batch_size=4)
            batches | beam.Map(len) | beam.Map(note("batches"))
        with beam.Pipeline(runner=DaskRunner(), options=options) as pipeline:
            both = pipeline | beam.Create(range(4)) | beam.ParDo(split).with_outputs("odd", main="even")
            both.even | "main" >> beam.Map(note("main"))
            both.odd | "tagged" >> beam.Map(note("tagged"))
    print("batches:", " + ".join(told("batches")), "of 10 rows")
    print("main:", " ".join(sorted(told("main"))) or "nothing,", "tagged:", " ".join(sorted(told("tagged"))))
PYTHON
found=$("$work/venv/bin/python" "$work/job.py" 2>/dev/null)
echo "$found"
[ "$found" = "batches: 4 + 4 of 10 rows
main: nothing, tagged: 0 1 2 3" ]
