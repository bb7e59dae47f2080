#!/usr/bin/env bash
# Apache Beam's Python SDK runs no pipeline in a notebook beside pandas 3: Pipeline.run() sees the kernel, imports Beam's interactive runner
# and with it Beam's DataFrame interface, which asks for methods that pandas 3 no longer has. The same lines run in a plain process, where
# that interface is not imported, and in a kernel beside pandas 2. Neither package refuses the other: pip installs both.
# Seen, apache-beam 2.77.0, ipykernel 7.1.0, Python 3.11, Linux x86-64:
#   pandas 3.0.0, plain process: 3 elements; in a kernel: AttributeError: type object 'DataFrame' has no attribute 'first'
#   pandas 2.3.3, both: 3 elements
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/pipeline.py" <<'PYTHON'
import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to

with beam.Pipeline() as pipeline:
    assert_that(pipeline | beam.Create([1, 2, 3]), equal_to([1, 2, 3]))
print("3 elements")
PYTHON
cat > "$work/in_a_kernel.py" <<'PYTHON'
import sys

from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
try:
    with open(sys.argv[1]) as source:
        client.execute(source.read())
    while True:
        message = client.get_iopub_msg(timeout=300)
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            print(content["text"], end="")
        if message["msg_type"] == "error":
            print(f"{content['ename']}: {content['evalue']}")
            break
        if content.get("text") == "3 elements\n":
            break
finally:
    manager.shutdown_kernel(now=True)
PYTHON
for pandas in 3.0.0 2.3.3; do
    python3 -m venv "$work/$pandas"
    "$work/$pandas/bin/python" -m pip install --quiet apache-beam==2.77.0 "pandas==$pandas" ipykernel==7.1.0 jupyter_client==8.6.3
    echo "pandas $pandas"
    "$work/$pandas/bin/python" "$work/pipeline.py" 2> "$work/errors"
    "$work/$pandas/bin/python" "$work/in_a_kernel.py" "$work/pipeline.py" 2> "$work/errors"
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
pandas 3.0.0
3 elements
AttributeError: type object 'DataFrame' has no attribute 'first'
pandas 2.3.3
3 elements
3 elements
SEEN
