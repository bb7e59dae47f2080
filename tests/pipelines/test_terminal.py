"""What reaches the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.terminal import say, shown
from tests.support.make_inputs import GOOD
from tests.support.run_command import encode, run


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain é 猫 👩‍🚀", "plain é 猫 👩‍🚀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x07bell\r", "\\x1b[2J\\x07bell\\r"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("half \udce9", "half \\udce9"),
    ],
)
def test_control_characters_are_written_out(text: str, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(text) == seen
    say(text)
    assert capsys.readouterr().out == f"{seen}\n"


def test_a_file_s_name_cannot_clear_the_screen(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jpg").write_bytes(GOOD)
    (source / "\x1b[2J.jpg").write_bytes(GOOD)
    output = tmp_path / "out"
    encode(source, output, tiny_model, "--rows_per_shard", "1", "--dry_run")
    assert encode(source, output, tiny_model, "--rows_per_shard", "1").code == 0
    (output / "_vqbeam/stats/00000.json").unlink()
    (output / "data/00000.parquet").unlink()
    (source / "\x1b[2J.jpg").unlink()
    failed = encode(source, output, tiny_model, "--rows_per_shard", "1")
    assert failed.code == 1
    assert "\\x1b[2J.jpg" in failed.out
    assert "\x1b" not in failed.out + failed.err + run("status", output).out
