#!/usr/bin/env bash
# torch and numba in one process run two OpenMP libraries: torch's wheel brings its own libgomp.so.1, and numba's "omp" threading layer
# asks for libgomp.so.1.0.0, a name under which only the system's is found. Each has threads of its own, and those that have nothing to do
# wait in a loop for some milliseconds after each operation. So a program that calls torch and numba in turn has one library's idle
# threads on the cores where the other's are to work; on a machine with anything else to do, hundreds of short parallel loops take
# several times as long. OMP_WAIT_POLICY=PASSIVE, set before Python starts, ends the waiting but makes each loop 30 times as dear.
# Seen, torch 2.13.0, numba 0.68.1, numpy 2.4.6, Python 3.11, Linux x86-64 with 2 cores and the system's libgomp: two libraries; processor time of a
# process that sleeps, after torch 5.4 ms, after numba 3.9 ms, else 0.0 ms; with PASSIVE 0.0 ms after both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numba==0.68.1 numpy==2.4.6
cat > "$work/wait.py" <<'PYTHON'
import time

import numba
import numpy as np
import torch

torch.set_num_threads(2)
numba.set_num_threads(2)


@numba.njit(parallel=True)
def loop(x: np.ndarray) -> None:
    for i in numba.prange(2):
        x[i] += 1


def milliseconds(work) -> float:
    """Of processor time while this process sleeps after `work`, in the upper quarter of twenty times."""
    spent = []
    for _ in range(20):
        work()
        before = time.process_time()
        time.sleep(0.2)
        spent.append(1000 * (time.process_time() - before))
    return sorted(spent)[15]


x, matrix = np.zeros(2), torch.randn(1500, 1500)
loop(x)
after_torch, after_numba = milliseconds(lambda: matrix @ matrix), milliseconds(lambda: loop(x))
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if "libgomp" in line}
print(numba.threading_layer(), len(libraries), *("waits" if spent > 1 else "rests" for spent in (after_torch, after_numba)))
PYTHON
"$work/venv/bin/python" "$work/wait.py" | tee "$work/seen"
OMP_WAIT_POLICY=PASSIVE "$work/venv/bin/python" "$work/wait.py" | tee -a "$work/seen"
diff "$work/seen" - <<'SEEN'
omp 2 waits waits
omp 2 rests rests
SEEN
