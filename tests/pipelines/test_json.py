"""`status --json` and `verify --json`: one object on one line, with the fields in docs/errors.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from tests.support.paths import ROOT, SAMPLE

TAR = SAMPLE / "emoji-00000.tar"


def told(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    words = ["--output", str(tmp_path / "t"), "--limit", "30", "--rows_per_shard", "10"]
    assert main(["encode", "--input", str(TAR), *words, "--max_image_bytes", "2500", "--max_error_rate", "1"]) == 0
    return tmp_path / "t"


def test_status_counts_what_the_job_counted(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "status", str(tokens))
    assert (found["state"], found["command"], found["shards"], found["shards_done"]) == ("complete", "encode", 3, 3)
    assert found["rows_read"] == 30 == found["rows_written"] + found["rows_rejected"]
    assert found["errors"] == {"image_too_large": found["rows_rejected"]}
    assert (found["damaged"], found["failed"]) == ([], [])
    (tokens / "_SUCCESS").unlink()
    (tokens / "_vqbeam" / "stats" / "00001.json").unlink()
    found = told(capsys, "status", str(tokens))
    assert (found["state"], found["shards_done"]) == ("not complete", 2)


def test_verify_names_problems_and_what_was_removed(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "verify", str(tokens))
    assert (found["well"], found["problems"], found["damaged_shards"], found["removed"]) == (True, [], [], False)
    (tokens / "data" / "00001.parquet").write_bytes(b"PAR1")
    for flags, removed in (((), False), (("--repair",), True)):
        found = told(capsys, "verify", str(tokens), *flags, code=1)
        assert (found["well"], found["damaged_shards"], found["removed"]) == (False, [1], removed)
        assert "00001.parquet" in found["problems"][0]


def test_all_fields_are_documented(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = (
        (ROOT / "docs" / "errors.md")
        .read_text()
        .partition("--json` print one JSON object")[2]
        .partition("\n\nThe error")[0]
    )
    documented = {
        command: {
            name
            for row in re.findall(rf"^\| (`.*?) \| (?:both|{command}) \|", table, re.MULTILINE)
            for name in re.findall(r"`(\w+)`", row)
        }
        for command in ("status", "verify")
    }
    for command, names in documented.items():
        assert told(capsys, command, str(tokens)).keys() == names
