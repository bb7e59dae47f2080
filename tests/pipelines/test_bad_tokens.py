"""Bad input to `decode`, end to end: the documented error row comes of it, and no good row is lost."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from models.vqgan.checkpoint import save_vqgan
from tests.support.bad_tokens import CASES, GOOD_CODES, TokenCase, tokens
from tests.support.images import encoded, scene
from tests.support.run_command import decode, encode, run
from tests.support.vqgan_checkpoints import random_vqgan


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decode_rejects_bad_rows_as_documented_and_paints_the_others(
    case: TokenCase, tmp_path: Path, tiny_model: Path
) -> None:
    source = write(tmp_path / "tokens.parquet", case.data)

    result = decode(source, tmp_path / "out", tiny_model)

    assert result.code == 0, result.err
    rows = result.rows()
    assert [row["key"] for row in rows] == list(case.good)
    paths = [tmp_path / "out" / row["image_path"] for row in rows]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.resolve().is_relative_to(tmp_path / "out" / "images")
        assert Image.open(path).size == (16, 16)
    found = result.rejected()
    assert [(row["error"], row["key"]) for row in found] == [(bad.code, bad.key) for bad in case.bad]
    for row, bad in zip(found, case.bad, strict=True):
        assert row["uri"].endswith(bad.uri)
        assert bad.message in row["message"]
    assert result.total("rows_read") == len(case.good) + len(case.bad)
    result.check_nothing_lost()


def test_a_clash_with_the_paths_that_decode_writes_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_model: Path
) -> None:
    source = write(tmp_path / "tokens.parquet", tokens([GOOD_CODES], n=[1]))

    result = decode(source, tmp_path / "out", tiny_model, "--rename", "n=image_path")

    assert result.code == 2
    assert "column n would be written as image_path, a name that is taken" in result.err
    assert not (tmp_path / "out").exists()


def test_hostile_keys_name_no_member_outside_a_tar(tmp_path: Path, tiny_model: Path) -> None:
    keys = ["../../up", "/etc/passwd", "two\nlines.png", "k" * 5000]
    source = write(tmp_path / "tokens.parquet", tokens([GOOD_CODES] * 4, key=keys))

    result = decode(source, tmp_path / "out", tiny_model, "--image_layout", "webdataset")

    assert result.code == 0, result.err
    with tarfile.open(tmp_path / "out" / "tars" / "00000.tar") as tar:
        names = [name for name in tar.getnames() if not name.startswith("__")]
        stored = [json.load(tar.extractfile(name))["key"] for name in names if name.endswith(".json")]
    assert all("/" not in name and name.count(".") == 1 and len(name) < 100 for name in names)
    assert stored == keys


@pytest.fixture(scope="module")
def own_tokens(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Tokens that vqbeam made with the tiny model, so with provenance."""
    folder = tmp_path_factory.mktemp("own")
    write(folder / "a.png", encoded(scene(), "PNG"))
    result = encode(folder / "a.png", folder / "tokens", tiny_model)
    assert result.code == 0, result.err
    return folder / "tokens" / "data"


def test_tokens_find_the_model_that_made_them(tmp_path: Path, own_tokens: Path) -> None:
    result = run("decode", "--input", own_tokens, output=tmp_path / "out")
    assert result.code == 0, result.err
    assert len(result.rows()) == 1


def test_tokens_of_another_model_are_refused_unless_allowed(tmp_path: Path, own_tokens: Path) -> None:
    other = tmp_path / "other"
    save_vqgan(random_vqgan(seed=1), other, name="other")

    refused = decode(own_tokens, tmp_path / "refused", other)
    allowed = decode(own_tokens, tmp_path / "allowed", other, "--allow_model_mismatch")

    assert refused.code == 2
    assert "'tiny'" in refused.err
    assert "allow_model_mismatch" in refused.err
    assert not (tmp_path / "refused").exists()
    assert allowed.code == 0, allowed.err
    assert len(allowed.rows()) == 1


def test_tokens_of_another_model_among_good_ones_fail_their_shard_and_no_other(
    tmp_path: Path, own_tokens: Path, tiny_model: Path
) -> None:
    other = tmp_path / "other"
    save_vqgan(random_vqgan(seed=1), other, name="other")
    write(tmp_path / "b.png", encoded(scene(), "PNG"))
    strangers = encode(tmp_path / "b.png", tmp_path / "strangers", other)
    assert strangers.code == 0, strangers.err
    both = f"{own_tokens}/*.parquet", f"{tmp_path}/strangers/data/*.parquet"

    result = decode(both[0], tmp_path / "out", tiny_model, "--input", *both, "--rows_per_shard", "1")

    assert result.code == 1
    assert len(result.rows()) == 1
    (failed,) = result.last_run()["failed"]
    assert failed[0] == 1
    assert "'other'" in failed[1]
    assert result.rejected() == []


def test_tokens_that_do_not_say_their_model_need_one_named(tmp_path: Path) -> None:
    source = write(tmp_path / "tokens.parquet", tokens([GOOD_CODES]))
    result = run("decode", "--input", source, output=tmp_path / "out")
    assert result.code == 2
    assert "--model" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("samples", [[2, None, -1, 2], ["2", "x", "", "2"]], ids=["numbers", "text"])
def test_any_column_called_sample_leaves_the_names_of_images_apart(
    tmp_path: Path, tiny_model: Path, samples: list[object]
) -> None:
    source = write(tmp_path / "tokens.parquet", tokens([GOOD_CODES] * 4, key=["a"] * 4, sample=samples))

    result = decode(source, tmp_path / "out", tiny_model)

    assert [row["sample"] for row in result.rows()] == samples
    assert len({row["image_path"] for row in result.rows()}) == len(result.files("images/*/*.png")) == 4
