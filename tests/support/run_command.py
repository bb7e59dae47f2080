"""Runs vqbeam commands in this process for end-to-end tests, and reads their output folders."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq

from pipelines.__main__ import main

SMALL = ("--batch_size", "4", "--threads_per_worker", "1", "--max_error_rate", "1", "--device", "cpu")
STAGES = ("Looking ", "Loading ", "Listing ", "Comparing ", "Adding ", "Reading where ")  # how lines of stages begin
COUNTS = ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions")


@dataclass(frozen=True)
class Outcome:
    """The exit code and output of a command, without the lines of `pipelines.stages`, which come by time as well.

    `output` is the folder or URL that it wrote to."""

    code: int
    output: str
    out: str
    err: str

    def files(self, pattern: str) -> list[str]:
        """Paths below the output folder, sorted. For some stores, `**` also finds the folder, which is left out."""
        fs, root = fsspec.core.url_to_fs(self.output)
        return sorted(path[len(root.rstrip("/")) + 1 :] for path in fs.glob(f"{root}/{pattern}") if path != root)

    def read(self, path: str) -> bytes:
        fs, root = fsspec.core.url_to_fs(self.output)
        fs.invalidate_cache()
        return fs.cat_file(f"{root}/{path}")

    def data(self) -> dict[str, bytes]:
        """What was written besides the ledger."""
        paths = [path for path in self.files("**/*.*") if not path.startswith("_vqbeam")]
        return {path: self.read(path) for path in paths}

    def keys(self) -> list[str]:
        """The keys of the rows written, in order."""
        return [row["key"] for row in self.rows()]

    def rows(self) -> list[dict[str, Any]]:
        """The rows written, in order."""
        return self._table_rows("data/*.parquet")

    def rejected(self) -> list[dict[str, str]]:
        """The rows of the error files, in order."""
        return self._table_rows("_vqbeam/errors/*.parquet")

    def marks(self) -> list[dict[str, Any]]:
        return [json.loads(self.read(path)) for path in self.files("_vqbeam/stats/*.json")]

    def total(self, name: str) -> int:
        return sum(mark[name] for mark in self.marks())

    def by_reason(self, name: str) -> dict[str, int]:
        """`errors`, `filters` or `notices` of all shards."""
        return dict(sum((Counter(mark[name]) for mark in self.marks()), Counter()))

    def last_run(self) -> dict[str, Any]:
        return json.loads(self.read("_vqbeam/last_run.json"))

    def check_refused(self, *message: str) -> None:
        """Asserts that it ended before it wrote anything, with all of `message` on stderr."""
        assert self.code == 2, self.err
        for part in message:
            assert part in self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        assert not Path(self.output).exists()

    def check_nothing_lost(self) -> None:
        """Asserts that each row is written, rejected or filtered, and that the tables hold what the marks count."""
        counts = {name: self.total(name) for name in COUNTS}
        ends = counts["rows_written"] + counts["rows_rejected"] + counts["rows_filtered"]
        assert counts["rows_read"] == ends
        assert len(self.rows()) == counts["rows_written"] or self.files("tars/*")
        rejected = self.rejected()
        assert len(rejected) == counts["rows_rejected"]
        assert Counter(row["error"] for row in rejected) == self.by_reason("errors")
        assert sum(self.by_reason("filters").values()) == counts["rows_filtered"]

    def _table_rows(self, pattern: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in self.files(pattern):
            rows += pq.read_table(io.BytesIO(self.read(path))).to_pylist()
        return rows


def run(*argv: object, output: str | Path = "") -> Outcome:
    """Runs a command line; `output` is added as --output if given."""
    words = [str(word) for word in argv] + (["--output", str(output)] if output else [])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    told = (line for line in err.getvalue().splitlines(keepends=True) if not line.startswith(STAGES))
    return Outcome(code, str(output), out.getvalue(), "".join(told))


def encode(source: str | Path, output: str | Path, model: Path, *flags: object) -> Outcome:
    """`vqbeam encode` with `SMALL` flags."""
    return run("encode", "--input", source, "--model", model, *SMALL, *flags, output=output)


def decode(source: str | Path, output: str | Path, model: Path, *flags: object) -> Outcome:
    """`vqbeam decode` with `SMALL` flags."""
    return run("decode", "--input", source, "--model", model, *SMALL, *flags, output=output)
