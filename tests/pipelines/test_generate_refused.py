"""Prompts, flags and models that cannot be used are refused before anything is written: exit code 2, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.bart.checkpoint import save_bart
from models.vqgan.checkpoint import save_vqgan
from models.weights.tokenizer_files import tokenizer_files
from tests.support.bart_checkpoints import random_bart
from tests.support.tiny_generator import TINY_GENERATOR, TINY_VQGAN, TOKENIZER, generate, write_prompts
from tests.support.vqgan_checkpoints import random_vqgan

FLAGS = [
    ("--images_per_prompt 2", ("nothing to draw", "--prompt")),
    ("--prompt a --input IN", ("prompt and input contradict each other",)),
    ("--input IN/none.txt", ("no matching files",)),
    ("--prompt a --guidance_scale nan", ("--guidance_scale", "'nan'", "finite number")),
    ("--prompt a --guidance_scale 1e300", ("--guidance_scale", "1e6")),
    ("--prompt a --guidance_scale ten", ("--guidance_scale", "'ten'")),
    ("--prompt a --temperature 0", ("--temperature", "above 0")),
    ("--prompt a --temperature -1", ("--temperature", "above 0")),
    ("--prompt a --temperature inf", ("--temperature", "'inf'")),
    ("--prompt a --top_k -1", ("--top_k", "whole number")),
    ("--prompt a --top_k 2.5", ("--top_k", "whole number")),
    ("--prompt a --top_p 0", ("--top_p", "above 0")),
    ("--prompt a --top_p 1.1", ("--top_p", "at most 1")),
    ("--prompt a --seed -1", ("--seed", "whole number")),
    ("--prompt a --seed 9223372036854775808", ("--seed", "2^63 - 1")),
    ("--prompt a --images_per_prompt 0", ("--images_per_prompt", "from 1")),
    ("--prompt a --images_per_prompt 1000000", ("--images_per_prompt", "10000")),
    ("--prompt a --keep_best 1", ("--keep_best", "--clip")),
    ("--prompt a --clip MODEL --keep_best 3 --images_per_prompt 2", ("--keep_best 3", "not so many")),
    ("--prompt a --clip MODEL --keep_best 0", ("--keep_best", "at least 1")),
    ("--prompt a --clip IN", ("no CLIP here",)),
    ("--prompt a --image_format gif", ("gif", "png")),
    ("--prompt a --key_from text", ("text", "prompt")),
    ("--prompt a --vqgan IN", ("no VQGAN checkpoint here",)),
    ("--prompt a --vqgan nowhere", ("no model 'nowhere'",)),
    ("--prompt a --promt b", ("--promt", "did you mean --prompt?")),
    ("--input IN --key_from prompt --key_column key", ("contradict each other",)),
    ("--input IN --prompt_column text", ("text", "it has")),
    ("--input IN --rename n=clip_score", ("clip_score", "--rename: ", "n=NAME")),
    ("--input IN --extend", ("no plan", "--extend")),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[flags for flags, _ in FLAGS])
def test_flags_that_cannot_be_met_are_refused(
    tiny_generator: Path, tmp_path: Path, flags: str, message: tuple[str, ...]
) -> None:
    source = write_prompts(tmp_path / "in" / "prompts.jsonl", [{"key": "a", "prompt": "a", "n": 1}]).parent
    words = [word.replace("IN", str(source)).replace("MODEL", str(tiny_generator)) for word in flags.split()]
    generate(tiny_generator, tmp_path / "out", *words).check_refused(*message)


def no_tokenizer(folder: Path) -> None:
    for path in tokenizer_files(folder / "dalle_bart").values():
        path.unlink()


def half_a_tokenizer(folder: Path) -> None:
    no_tokenizer(folder)
    shutil.copy(TOKENIZER / "vocab.json", folder / "dalle_bart")


def broken_tokenizer(folder: Path) -> None:
    (folder / "dalle_bart" / "tokenizer.json").write_text('{"version": "1.0", "model"')


def foreign_tokenizer(folder: Path) -> None:
    """Its ids go beyond the table of the model."""
    small = random_bart(replace(TINY_GENERATOR, encoder_vocab_size=200))
    shutil.rmtree(folder / "dalle_bart")
    save_bart(small, folder / "dalle_bart", name="small", tokenizer=tokenizer_files(TOKENIZER))


def smaller_codebook(folder: Path) -> None:
    shutil.rmtree(folder / "vqgan")
    save_vqgan(random_vqgan(replace(TINY_VQGAN, n_embed=16)), folder / "vqgan", name="small")


def larger_codebook(folder: Path) -> None:
    shutil.rmtree(folder / "vqgan")
    save_vqgan(random_vqgan(replace(TINY_VQGAN, n_embed=64)), folder / "vqgan", name="large")


def other_grid(folder: Path) -> None:
    shutil.rmtree(folder / "vqgan")
    save_vqgan(random_vqgan(replace(TINY_VQGAN, ch_mult=(1, 1, 1))), folder / "vqgan", name="fine")


def no_vqgan(folder: Path) -> None:
    shutil.rmtree(folder / "vqgan")


def no_bart(folder: Path) -> None:
    shutil.rmtree(folder / "dalle_bart")


def cut_weights(folder: Path) -> None:
    path = folder / "dalle_bart" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    edit(folder / "dalle_bart" / "config.json", weights_id=None)


def option_not_built(folder: Path) -> None:
    edit(folder / "dalle_bart" / "config.json", use_cosine_attention=True)


def other_width(folder: Path) -> None:
    edit(folder / "dalle_bart" / "config.json", d_model=64, weights_id=None)


def wider_bart(folder: Path) -> None:
    edit(folder / "dalle_bart" / "config.json", d_model=64)


def deeper_vqgan(folder: Path) -> None:
    edit(folder / "vqgan" / "config.json", num_res_blocks=2)


def senseless_default(folder: Path) -> None:
    edit(folder / "dalle_bart" / "config.json", generation={"guidance_scale": "strong"})


def misspelt_default(folder: Path) -> None:
    edit(folder / "dalle_bart" / "config.json", generation={"guidance": 4})


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BAD_MODELS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (no_tokenizer, ("no tokenizer here", "tokenizer.json")),
    (half_a_tokenizer, ("no merges.txt",)),
    (broken_tokenizer, ("tokenizer.json", "not a tokenizer")),
    (foreign_tokenizer, ("encoder_vocab_size", "another model")),
    (smaller_codebook, ("do not go together", "codebook has 16")),
    (larger_codebook, ("do not go together", "codebook has 64")),
    (other_grid, ("do not go together", "8x8 = 64")),
    (no_vqgan, ("holds no VQGAN", "--vqgan")),
    (no_bart, ("no DALL·E BART here",)),
    (cut_weights, ("model.safetensors",)),
    (option_not_built, ("use_cosine_attention",)),
    (other_width, ("dalle_bart: the weights do not fit the configuration", "misshapen", "not [64]")),
    (wider_bart, ("dalle_bart: the weights do not fit the configuration", "misshapen", "not [64]")),
    (deeper_vqgan, ("vqgan: the weights do not fit the configuration", "missing: encoder.")),
    (senseless_default, ("guidance_scale 'strong'",)),
    (misspelt_default, ("guidance 4", "guidance_scale")),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_MODELS, ids=[spoil.__name__ for spoil, _ in BAD_MODELS])
def test_a_model_that_cannot_be_used_is_refused(
    tiny_generator: Path, tmp_path: Path, spoil: Callable[[Path], None], message: tuple[str, ...]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_generator, folder)
    spoil(folder)
    generate(folder, tmp_path / "out", "--prompt", "a").check_refused(*message)


def test_a_vqgan_whose_weights_give_no_numbers_paints_nothing(tiny_generator: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_generator / "dalle_bart", tmp_path / "model" / "dalle_bart")
    vqgan = random_vqgan(TINY_VQGAN)
    vqgan.decoder.conv_out.weight.fill_(float("nan"))
    save_vqgan(vqgan, tmp_path / "model" / "vqgan", name="broken")
    outcome = generate(tmp_path / "model", tmp_path / "out", "--prompt", "a")
    assert outcome.code == 1
    told = "shard 00000: the VQGAN makes images that are no numbers in float32: its weights are damaged; copy"
    assert told in outcome.out
    assert "Traceback" not in outcome.err
    assert outcome.files("images/**/*.png") == []


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "tokenizer.json"])
def test_a_clip_that_lacks_a_file_is_refused_before_anything_is_planned(
    tiny_generator: Path, tmp_path: Path, missing: str
) -> None:
    shutil.copytree(tiny_generator / "clip", tmp_path / "clip")
    (tmp_path / "clip" / missing).unlink()
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "a", "--clip", tmp_path / "clip")
    outcome.check_refused(missing)


def test_a_clip_whose_weights_do_not_fit_is_refused_before_anything_is_planned(
    tiny_generator: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_generator / "clip", tmp_path / "clip")
    vision = json.loads((tmp_path / "clip" / "config.json").read_text())["vision_config"]
    edit(tmp_path / "clip" / "config.json", vision_config=vision | {"num_hidden_layers": 9})
    outcome = generate(tiny_generator, tmp_path / "out", "--prompt", "a", "--clip", tmp_path / "clip")
    outcome.check_refused("the weights do not fit the configuration", "missing: vision_model.encoder.layers")


def test_a_vqgan_of_another_folder_may_paint(tiny_generator: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_generator / "dalle_bart", tmp_path / "bart")
    words = ("--prompt", "a", "--vqgan", tiny_generator / "vqgan")
    assert generate(tmp_path / "bart", tmp_path / "out", *words).code == 0
