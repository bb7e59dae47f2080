#!/usr/bin/env bash
# pyarrow 17.0.0 to 23.0.1: pc.if_else(condition, null, strings) makes an array whose last offset leads past its data if
# `strings` is a slice, as every batch of a Parquet file after the first is. The values read right; only
# validate() or RecordBatch.from_arrays(...).validate() fails, far from the cause. pyarrow 24.0.0 makes a valid array.
# Seen, Python 3.11, Linux x86-64:
#   17.0.0 ArrowInvalid: First or last binary offset out of bounds
#   23.0.1 ArrowInvalid: First or last binary offset out of bounds
#   24.0.0 valid
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/try.py" <<'PYTHON'
import pyarrow as pa
import pyarrow.compute as pc

captions = pa.array(["a red apple", "a blue boat", "a green tree"])[1:]
cleared = pc.if_else(pa.array([True, False]), pa.scalar(None, pa.string()), captions)
try:
    cleared.validate()
    print(pa.__version__, "valid")
except pa.ArrowInvalid as error:
    print(pa.__version__, "ArrowInvalid:", str(error).rpartition(": ")[2])
PYTHON
for version in 17.0.0 23.0.1 24.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "pyarrow==$version" "numpy<2.4"
    "$work/$version/bin/python" "$work/try.py" | tee -a "$work/seen"
done
diff "$work/seen" - <<'SEEN'
17.0.0 ArrowInvalid: First or last binary offset out of bounds
23.0.1 ArrowInvalid: First or last binary offset out of bounds
24.0.0 valid
SEEN
