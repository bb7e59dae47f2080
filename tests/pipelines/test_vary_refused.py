"""Flags, inputs and models that `vqbeam vary` cannot use are refused before anything is written: exit code 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.vqgan.checkpoint import save_vqgan
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from tests.support.run_command import run
from tests.support.tiny_generator import TINY_VQGAN
from tests.support.vary_runs import vary, write_images, write_tokens
from tests.support.vqgan_checkpoints import TINY_GUMBEL, random_vqgan

FLAGS = [
    ("IMAGES --strength 1.1", ("--strength", "from 0 to 1")),
    ("IMAGES --strength -0.1", ("--strength", "from 0 to 1")),
    ("IMAGES --strength nan", ("--strength", "from 0 to 1")),
    ("IMAGES --strength much", ("--strength", "'much'")),
    ("IMAGES --method noise", ("noise", "latent", "codes", "model")),
    ("IMAGES --images_per_input 0", ("--images_per_input", "from 1")),
    ("IMAGES --seed -1", ("--seed", "whole number")),
    ("IMAGES --keep_rows 2", ("--keep_rows", "--method model only")),
    ("IMAGES --guidance_scale 3", ("--guidance_scale", "--method model only")),
    ("IMAGES --method codes --top_k 3", ("--top_k", "--method model only")),
    ("IMAGES --method model --keep_rows 5", ("--keep_rows 5", "4 rows", "0 to 4")),
    ("IMAGES --method model --keep_rows -1", ("--keep_rows -1", "0 to 4")),
    ("IMAGES --method model --keep_rows 1.5", ("--keep_rows", "'1.5'")),
    ("IMAGES --method model --keep_rows 2 --strength 0.5", ("--keep_rows and --strength", "give one of them")),
    ("IMAGES --method model --guidance_scale nan", ("--guidance_scale", "finite number")),
    ("IMAGES --backend vqgan-jax", ("--method latent", "--backend torch")),
    ("IMAGES --backend vqgan-jax --method model", ("--method model", "--backend torch")),
    ("IMAGES --allow_model_mismatch", ("--allow_model_mismatch", "images, and no tokens")),
    ("IMAGES --image_column image --code_column n", ("--code_column and --image_column contradict",)),
    ("IMAGES --code_column caption", ("--code_column: column caption", "list of integers")),
    ("IMAGES --rename n=sample", ("sample", "--rename: ", "n=NAME")),
    ("IMAGES --rename n=image_path", ("image_path", "--rename: ", "n=NAME")),
    ("IMAGES --method model --vqgan IMAGES", ("no VQGAN checkpoint here",)),
    ("IMAGES --method model --model MODEL/vqgan", ("no DALL·E BART here",)),
    ("IMAGES --model nowhere", ("no model 'nowhere'",)),
    ("TOKENS --resize pad", ("--resize", "tokens, and no images")),
    ("TOKENS --max_image_bytes 5", ("--max_image_bytes", "tokens, and no images")),
    ("TOKENS --code_column encoding --uri_schemes gs", ("--uri_schemes", "tokens, and no images")),
    ("TOKENS --image_column encoding", ("--image_column: column encoding", "bytes")),
    ("NOWHERE", ("no matching files",)),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("in")
    images = write_images(folder / "images.parquet")
    tokens = write_tokens(images, folder / "tokens", tiny_generator / "vqgan")
    return {"IMAGES": images, "TOKENS": tokens, "NOWHERE": folder / "none.parquet"}


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[flags for flags, _ in FLAGS])
def test_flags_that_cannot_be_met_are_refused(
    tiny_generator: Path, inputs: dict[str, Path], tmp_path: Path, flags: str, message: tuple[str, ...]
) -> None:
    kind, *words = flags.split()
    words = [str(inputs.get(word, word)).replace("MODEL", str(tiny_generator)) for word in words]
    vary(tiny_generator, tmp_path / "out", "--input", inputs[kind], *words).check_refused(*message)


def test_tokens_of_another_codebook_are_refused_unless_asked_for(
    tiny_generator: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    save_vqgan(random_vqgan(TINY_VQGAN, seed=1), tmp_path / "other", name="other")
    words = ("--input", inputs["TOKENS"], "--method", "codes")
    vary(tmp_path / "other", tmp_path / "out", *words).check_refused("not with this one", "allow_model_mismatch")
    assert vary(tmp_path / "other", tmp_path / "out", *words, "--allow_model_mismatch").code == 0


def test_tokens_of_unknown_origin_need_a_model(inputs: dict[str, Path], tmp_path: Path) -> None:
    table = pq.read_table(inputs["TOKENS"]).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "tokens.parquet")
    run("vary", "--input", tmp_path / "tokens.parquet", output=tmp_path / "out").check_refused("name it with --model")


def test_images_and_tokens_in_one_table_are_asked_about(
    tiny_generator: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    table = pq.read_table(inputs["TOKENS"])
    table = table.append_column("jpg", pa.array([b"image"] * len(table)))
    pq.write_table(table, tmp_path / "both.parquet")
    outcome = vary(tiny_generator, tmp_path / "out", "--input", tmp_path / "both.parquet")
    outcome.check_refused("--image_column jpg", "--code_column encoding")


def test_a_table_without_captions_is_refused_by_method_model(tiny_generator: Path, tmp_path: Path) -> None:
    table = pq.read_table(write_images(tmp_path / "images.parquet")).drop_columns(["caption"])
    pq.write_table(table, tmp_path / "bare.parquet")
    words = ("--input", tmp_path / "bare.parquet", "--method", "model")
    vary(tiny_generator, tmp_path / "out", *words).check_refused("no column looks like the caption")


def test_a_decoder_alone_varies_tokens_and_no_images(inputs: dict[str, Path], tmp_path: Path) -> None:
    save_vqgan(VQGAN(TINY_VQGAN, encoder=False), tmp_path / "half", name="half")
    outcome = vary(tmp_path / "half", tmp_path / "out", "--input", inputs["IMAGES"])
    outcome.check_refused("decoder only", "vary tokens, not images")


def test_noise_on_the_vectors_of_a_gumbel_quantiser_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    save_vqgan(random_vqgan(TINY_GUMBEL), tmp_path / "gumbel", name="gumbel")
    words = ("--input", inputs["TOKENS"], "--allow_model_mismatch")
    vary(tmp_path / "gumbel", tmp_path / "out", *words).check_refused("gumbel", "--method codes")
    outcome = vary(tmp_path / "gumbel", tmp_path / "out", "--input", inputs["IMAGES"])
    assert outcome.code == 0, outcome.err


def test_noise_on_latents_is_refused_for_a_tokenizer_without_any(
    inputs: dict[str, Path], tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = VQGANConfig.spec
    monkeypatch.setattr(VQGANConfig, "spec", lambda self, **names: replace(spec(self, **names), has_latents=False))
    for kind in ("IMAGES", "TOKENS"):
        outcome = vary(tiny_generator, tmp_path / kind, "--input", inputs[kind], "--method", "latent")
        outcome.check_refused("gives codes only; choose --method codes")
