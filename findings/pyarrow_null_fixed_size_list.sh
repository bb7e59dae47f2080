#!/usr/bin/env bash
# pyarrow 25.0.1 writes a fixed-size list column with a null to Parquet and then cannot read its own file, since a null
# has no values in Parquet; pyarrow 17.0.0 refuses to write it. Lists of variable size come back as they were. So a token
# table of fixed-size lists must not hold nulls, or its column be written as plain lists.
# Seen, Python 3.11, Linux x86-64:
#   17.0.0 fixed size: ArrowNotImplementedError on write
#   17.0.0 variable size: as written
#   25.0.1 fixed size: ArrowInvalid on read
#   25.0.1 variable size: as written
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/try.py" <<'PYTHON'
import io

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [[1, 2], None, [3, 4]]
for name, size in (("fixed size", 2), ("variable size", -1)):
    file, step = io.BytesIO(), "write"
    try:
        pq.write_table(pa.table({"codes": pa.array(ROWS, pa.list_(pa.int32(), size))}), file)
        step = "read"
        found = "as written" if pq.read_table(file)["codes"].to_pylist() == ROWS else "other rows"
    except pa.ArrowException as error:
        found = f"{type(error).__name__} on {step}"
    print(pa.__version__, f"{name}: {found}")
PYTHON
for version in 17.0.0 25.0.1; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "pyarrow==$version" "numpy<2.4"
    "$work/$version/bin/python" "$work/try.py" | tee -a "$work/seen"
done
diff "$work/seen" - <<'SEEN'
17.0.0 fixed size: ArrowNotImplementedError on write
17.0.0 variable size: as written
25.0.1 fixed size: ArrowInvalid on read
25.0.1 variable size: as written
SEEN
