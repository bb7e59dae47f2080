#!/usr/bin/env bash
# safetensors 0.8.0: save_file with two or more metadata entries writes them in another order from process to process
# (a hash map's), so equal weights give files of different bytes and SHA-256. Tensors themselves are in a fixed order.
# This defeats caching, deduplication and verification of checkpoints by hash: sort the header afterwards, or write one entry.
# Seen, Python 3.11, Linux x86-64, eight processes each:
#   1 metadata entry: 1 file
#   4 metadata entries: several files
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet safetensors==0.8.0 numpy==2.3.5
cat >"$work/save.py" <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

entries = {name: "x" for name in ("format", "weights_id", "model", "version")[: int(sys.argv[1])]}
print(hashlib.sha256(save({"w": np.zeros(4, np.float32)}, metadata=entries)).hexdigest())
PYTHON
files() { for _ in 1 2 3 4 5 6 7 8; do "$work/venv/bin/python" "$work/save.py" "$1"; done | sort -u | wc -l; }
one=$(files 1)
four=$(files 4)
echo "1 metadata entry: $one file"
echo "4 metadata entries: $([ "$four" -gt 1 ] && echo several || echo one) files"
[ "$one" = 1 ] && [ "$four" -gt 1 ]
