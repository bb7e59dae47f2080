"""`vqbeam generate --dtype int8`: on a CPU."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tests.support.run_command import run

PROMPTS = ("--prompt", "a red apple", "a rocket", "a boat")


def test_a_list_is_drawn_at_once(tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--model", tiny_generator, *PROMPTS, "--dtype", "int8")
    drawn = run("generate", *words, "--keep_tokens", output=tmp_path / "out")
    assert drawn.code == 0, drawn.err
    table = pq.read_table(tmp_path / "out" / "data")
    assert table.num_rows == 3
    assert b'"int8"' in table.schema.metadata[b"vqbeam"]
    shown = run("generate", *words, "--dry_run", output=tmp_path / "another")
    assert "batch 4" in shown.out


def test_a_gpu_is_refused_before_anything_is_written(tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--model", tiny_generator, *PROMPTS, "--dtype", "int8", "--device", "cuda:99")
    refused = run("generate", *words, output=tmp_path / "out")
    assert refused.code == 2
    assert "CUDA GPUs" in refused.err
    assert not (tmp_path / "out").exists()


def test_other_commands_do_not_know_it(tmp_path: Path) -> None:
    refused = run("encode", "--input", "x", "--dtype", "int8", output=tmp_path / "out")
    assert refused.code == 2
    assert "invalid choice: 'int8'" in refused.err
