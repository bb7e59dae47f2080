"""Bad input to `encode`, end to end: the documented error row comes of it, and no good row is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bad_inputs import CASES, Case
from tests.support.run_command import encode


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_encode_rejects_bad_rows_as_documented_and_writes_the_others(
    case: Case, tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    case.build(folder)

    result = encode(folder / case.source, tmp_path / "out", tiny_model, *case.flags)

    assert result.code == 0, result.err
    assert [row["key"] for row in result.rows()] == list(case.good)
    found = result.rejected()
    assert [(row["error"], row["key"]) for row in found] == [(bad.code, bad.key) for bad in case.bad]
    for row, bad in zip(found, case.bad, strict=True):
        assert row["uri"].endswith(bad.uri)
        assert bad.message in row["message"]
    assert result.by_reason("filters") == dict(case.filtered)
    assert result.total("missing_captions") == case.missing_captions
    assert result.total("rows_read") == len(case.good) + len(case.bad) + sum(case.filtered.values())
    assert any(case.notice in notice for notice in result.by_reason("notices")) or not case.notice
    result.check_nothing_lost()
