#!/usr/bin/env bash
# fsspec's memory:// says when a file was made as a number in listings (ls, find, glob) and as a date in info. Who keeps what a
# listing says, and compares it with info later to see whether a file has changed, finds every file changed.
# Seen, fsspec 2026.9.0, Python 3.11, Linux x86-64:
#   ls float
#   find float
#   info datetime
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet fsspec==2026.9.0
"$work/venv/bin/python" - <<'PYTHON' | tee "$work/seen"
import fsspec

files = fsspec.filesystem("memory")
files.pipe("/folder/file", b"x")
said = {
    "ls": files.ls("/folder", detail=True)[0],
    "find": files.find("/folder", detail=True)["/folder/file"],
    "info": files.info("/folder/file"),
}
for name, about in said.items():
    print(name, type(about["created"]).__name__)
PYTHON
diff "$work/seen" - <<'SEEN'
ls float
find float
info datetime
SEEN
