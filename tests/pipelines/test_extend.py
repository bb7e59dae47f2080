"""Flags that change what is in the output folder: `--extend`, `--overwrite`, `--limit`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipelines import planning
from tests.support.run_command import encode, run
from tests.support.shard_runs import snapshot
from tests.support.small_jobs import ROWS, dataset, encode_small, png, write_table, write_tar
from transforms import storage


def keys(outcome) -> list[str]:
    return [row["key"] for row in outcome.rows()]


def test_extend_adds_new_files_as_shards_after_the_old_ones(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", files=2)
    output = tmp_path / "out"
    encode_small(source, output, tiny_model)
    before = snapshot(str(output))
    write_table(source / "00 first by name.parquet", 500)
    extended = encode_small(source, output, tiny_model, "--extend")
    assert extended.code == 0
    assert "1 new file, 1 new shard\n" in extended.err
    after = snapshot(str(output))
    old = [name for name in before if name.startswith(("data/", "_vqbeam/stats/", "_vqbeam/errors/"))]
    assert {name: after[name] for name in old} == {name: before[name] for name in old}
    assert extended.files("data/*") == ["data/00000.parquet", "data/00001.parquet", "data/00002.parquet"]
    assert keys(extended)[-1] == "k508"
    again = encode_small(source, output, tiny_model, "--extend")
    assert (again.code, "0 new files, 0 new shards" in again.err) == (0, True)
    assert snapshot(str(output)) == after
    assert encode_small(source, output, tiny_model).code == 0
    assert run("verify", output).code == 0


def test_extend_says_which_known_files_have_changed(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", files=2)
    encode_small(source, tmp_path / "out", tiny_model)
    assert "warning" not in encode_small(source, tmp_path / "out", tiny_model, "--extend").err
    write_table(source / "1.parquet", 0, rows=12)
    extended = encode_small(source, tmp_path / "out", tiny_model, "--extend")
    assert extended.code == 0
    assert f"warning: {source}/1.parquet has changed since it was planned" in extended.err
    assert "0.parquet" not in extended.err


@pytest.mark.parametrize("kind", ["tables", "images"])
def test_extend_takes_a_file_that_was_copied_again_for_the_same(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    source = tmp_path / "in"
    if kind == "tables":
        dataset(source, files=2)
    else:
        source.mkdir()
        for row in range(3):
            (source / f"{row}.png").write_bytes(png(row))
    encode_small(source, tmp_path / "out", tiny_model)
    for path in source.iterdir():
        os.utime(path, (1, 1))
    extended = encode_small(source, tmp_path / "out", tiny_model, "--extend")
    assert (extended.code, "warning" in extended.err) == (0, False)


def test_extend_does_not_take_images_again_that_metadata_named(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for row in range(4):
        (folder / f"{row}.png").write_bytes(png(row))
    (folder / "metadata.csv").write_text("file_name,caption\n0.png,a\n1.png,b\n")
    assert encode(folder, tmp_path / "out", tiny_model).total("rows_written") == 4
    (folder / "4.png").write_bytes(png(4))
    extended = encode(folder, tmp_path / "out", tiny_model, "--extend")
    assert extended.code == 0
    assert extended.total("rows_written") == 5


def test_extend_needs_a_plan_and_no_overwrite(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", files=1)
    for flag in ("--extend", "--retry_rejected"):
        refused = encode_small(source, tmp_path / "out", tiny_model, flag)
        assert (refused.code, "holds no plan yet" in refused.err) == (2, True)
        refused = encode_small(source, tmp_path / "out", tiny_model, flag, "--overwrite")
        assert (refused.code, "overwrite starts over" in refused.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_overwrite_starts_over_with_other_options(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", files=2)
    output = tmp_path / "out"
    encode_small(source, output, tiny_model)
    (source / "1.parquet").unlink()
    replaced = encode_small(source, output, tiny_model, "--overwrite", "--resize", "pad")
    assert replaced.code == 0
    assert replaced.files("data/*") == ["data/00000.parquet"]
    encode_small(source, tmp_path / "fresh", tiny_model, "--resize", "pad")
    assert snapshot(str(output)) == snapshot(str(tmp_path / "fresh"))


def test_overwrite_removes_nothing_that_vqbeam_did_not_write(tmp_path: Path, tiny_model: Path) -> None:
    """Working in the folder that has one's images in `images/` is what people do."""
    write_table(tmp_path / "images" / "0.parquet", 0)
    refused = encode_small(tmp_path / "images", tmp_path, tiny_model, "--overwrite")
    assert refused.code == 2
    assert "images holds files that no plan of vqbeam knows" in refused.err
    assert encode_small(tmp_path / "images", tmp_path, tiny_model).code == 0
    assert encode_small(tmp_path / "images", tmp_path, tiny_model, "--overwrite").code == 0
    assert os.listdir(tmp_path / "images") == ["0.parquet"]


def test_overwrite_deletes_neither_its_own_input_nor_anything_before_the_input_is_found(
    tmp_path: Path, tiny_model: Path
) -> None:
    encode_small(dataset(tmp_path / "in", files=1), tmp_path / "out", tiny_model)
    before = snapshot(str(tmp_path / "out"))
    refused = run("decode", "--input", tmp_path / "out" / "data", "--overwrite", output=tmp_path / "out")
    assert (refused.code, "--overwrite would delete the input" in refused.err) == (2, True)
    refused = encode_small(tmp_path / "in" / "nothing*", tmp_path / "out", tiny_model, "--overwrite")
    assert (refused.code, "no matching files" in refused.err) == (2, True)
    assert snapshot(str(tmp_path / "out")) == before


def test_images_are_not_written_among_those_of_others(tmp_path: Path, tiny_model: Path) -> None:
    encode_small(dataset(tmp_path / "in", files=1), tmp_path / "tokens", tiny_model)
    (tmp_path / "images" / "00000").mkdir(parents=True)
    (tmp_path / "images" / "00000" / "000000001.jpg").write_bytes(png(1))
    refused = run("decode", "--input", tmp_path / "tokens" / "data", output=tmp_path)
    assert refused.code == 2
    assert "images holds files that no plan of vqbeam knows" in refused.err
    assert os.listdir(tmp_path / "images" / "00000") == ["000000001.jpg"]


def test_an_overwrite_that_is_cut_off_leaves_a_job_that_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", files=2)
    encode_small(source, tmp_path / "tokens", tiny_model)
    flags = ("decode", "--input", tmp_path / "tokens" / "data", "--batch_size", "4")
    assert run(*flags, output=tmp_path / "whole").code == 0
    whole = snapshot(str(tmp_path / "whole"))
    for cut in (2, 3, 4):  # marks are gone; tables too; tars too, but not the images
        output = Path(shutil.copytree(tmp_path / "whole", tmp_path / f"out{cut}"))
        calls: list[str] = []

        def limited(real, calls=calls, cut=cut):
            def call(uri: str) -> None:
                calls.append(uri)
                if len(calls) > cut:
                    raise KeyboardInterrupt
                real(uri)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "delete", limited(storage.delete))
            patch.setattr(storage, "delete_folder", limited(storage.delete_folder))
            with pytest.raises(KeyboardInterrupt):
                planning.remove_output(str(output))
        assert run(*flags, output=output).code == 0
        assert snapshot(str(output)) == whole


@pytest.mark.parametrize("limit", [1, 10, 13, 25, 99])
def test_limit_takes_the_first_rows_in_the_order_of_the_plan(tmp_path: Path, tiny_model: Path, limit: int) -> None:
    write_tar(tmp_path / "in" / "0.tar", 0, 13)
    write_tar(tmp_path / "in" / "1.tar", 13, 12)
    outcome = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--rows_per_shard", "5", "--limit", str(limit))
    assert outcome.code == 0
    assert keys(outcome) == [f"k{row}" for row in range(min(limit, 25))]
    assert outcome.total("rows_read") == min(limit, 25)


def test_limit_counts_rejected_rows_too(tmp_path: Path, tiny_model: Path) -> None:
    outcome = encode_small(dataset(tmp_path / "in", files=2), tmp_path / "out", tiny_model, "--limit", str(ROWS + 1))
    assert outcome.total("rows_read") == ROWS + 1
    assert outcome.total("rows_rejected") == 1
    assert keys(outcome)[-1] == f"k{ROWS}"


def test_a_folder_whose_name_looks_like_a_pattern_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    refused = encode_small(dataset(tmp_path / "in", files=1), tmp_path / "out[1]", tiny_model)
    assert refused.code == 2
    assert "out[1]: a folder's name without * ? [ is needed" in refused.err
