#!/usr/bin/env bash
# pyarrow 17.0.0: the wheel installs folders of Python beside pyarrow itself, of names that many projects have too:
# `benchmarks`, `examples`, `scripts`. `benchmarks` is a package with an __init__.py. A project's folder
# benchmarks/ without an __init__.py is a namespace package, which loses against it even if it comes first on sys.path:
# `import benchmarks.support` fails with ModuleNotFoundError as soon as this pyarrow is installed. 18.0.0 has none of them.
# Seen, Python 3.11, Linux x86-64:
#   17.0.0 ships benchmarks examples pyarrow scripts; ModuleNotFoundError: No module named 'benchmarks.support'
#   18.0.0 ships pyarrow; imported
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/project/benchmarks"
echo >"$work/project/benchmarks/support.py"
for version in 17.0.0 18.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet --no-deps "pyarrow==$version"
    (
        cd "$work/project"
        "$work/$version/bin/python" - <<'PYTHON'
from importlib.metadata import files, version

tops = sorted({file.parts[0] for file in files("pyarrow") if file.suffix == ".py"})
try:
    import benchmarks.support

    told = "imported"
except ModuleNotFoundError as error:
    told = f"ModuleNotFoundError: {error}"
print(version("pyarrow"), "ships", f"{' '.join(tops)};", told)
PYTHON
    )
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
17.0.0 ships benchmarks examples pyarrow scripts; ModuleNotFoundError: No module named 'benchmarks.support'
18.0.0 ships pyarrow; imported
SEEN
