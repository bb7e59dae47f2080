#!/usr/bin/env bash
# Apache Beam's Prism starts the worker of a PROCESS environment with --id='NAME', and the quotes arrive, since no shell takes
# them away. Flink's and Spark's job servers give --id=NAME. A worker that sends the id as it got it is told "not registered in
# worker pool", ends, and the job waits for ever. So the command of such an environment has to strip the quotes.
# Needs Go, which builds Prism from its module (some minutes the first time).
# Seen, Prism and apache-beam 2.77.0, Go 1.26, Python 3.11, Linux x86-64:
#   --id='job-001[job]_ref_Environment_default_environment_1'
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
GOBIN="$work" go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet apache-beam==2.77.0
printf '#!/usr/bin/env bash\nprintf "%%s\\n" "$1" >> "%s/id"\n' "$work" >"$work/worker"
chmod +x "$work/worker"
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
"$work/prism" --serve_http=false --job_port="$port" >/dev/null 2>&1 &
cat >"$work/job.py" <<'PYTHON'
import json
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

endpoint, worker = sys.argv[1:]
flags = ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--environment_type=PROCESS", "--job_name=job"]
pipeline = beam.Pipeline(options=PipelineOptions([*flags, "--environment_config", json.dumps({"command": worker})]))
pipeline | beam.Create([1]) | beam.Map(print)
pipeline.run().wait_until_finish()
PYTHON
timeout 60 "$work/venv/bin/python" "$work/job.py" "localhost:$port" "$work/worker" >/dev/null 2>&1 &
for _ in $(seq 100); do
  [ -s "$work/id" ] && break
  sleep 0.5
done
head -n 1 "$work/id"
grep -q "^--id='.*'\$" "$work/id"
