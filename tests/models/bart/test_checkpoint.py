from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bart.checkpoint import convert_bart, open_bart, save_bart
from models.bart.network import DalleBart
from models.bart.options import read_generation_defaults
from models.errors import CheckpointError, ConfigError
from models.vqgan.checkpoint import save_vqgan
from models.weights.tokenizer_files import tokenizer_files
from tests.support.bart_checkpoints import (
    GOLDEN_BART,
    GOLDEN_MIN_DALLE,
    TINY_BART,
    golden_bart,
    open_min_dalle,
    random_bart,
    write_dalle_mini,
    write_min_dalle,
    write_tokenizer,
)
from tests.support.vqgan_checkpoints import flax_file, random_vqgan


def weights(seed: int = 0) -> dict[str, Tensor]:
    return dict(random_bart(seed=seed).state_dict())


def stacked(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_dalle_mini(folder, leaves, TINY_BART)


def unstacked(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_dalle_mini(folder, leaves, TINY_BART, stacked=False)


def split(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_dalle_mini(folder, leaves, TINY_BART, parts=3)


def min_dalle(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_min_dalle(folder, leaves, dtype=torch.float32)


def ours(folder: Path, leaves: dict[str, Tensor]) -> Path:
    model = DalleBart(TINY_BART)
    model.load_state_dict(leaves)
    save_bart(model, folder, name="tiny")
    return folder


WRITERS = [(stacked, "dalle-mini"), (unstacked, "dalle-mini"), (split, "dalle-mini"), (ours, "vqbeam")]


def same_weights(model: DalleBart, leaves: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == leaves.keys() and all(torch.equal(value, leaves[name]) for name, value in state.items())


@pytest.mark.parametrize(("write", "kind"), WRITERS)
def test_each_format_is_reported_apart_and_loads_the_same_weights(
    write: Callable[[Path, dict[str, Tensor]], Path], kind: str, tmp_path: Path
) -> None:
    leaves = weights()
    checkpoint = open_bart(write(tmp_path / "model", leaves))
    model = checkpoint.load()
    assert (checkpoint.format, checkpoint.config) == (kind, TINY_BART)
    assert same_weights(model, leaves)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_min_dalle_weights_bring_their_geometry(tmp_path: Path) -> None:
    leaves = weights()
    checkpoint = open_min_dalle(min_dalle(tmp_path, leaves))
    assert (checkpoint.format, checkpoint.config) == ("min-dalle", TINY_BART)
    assert same_weights(checkpoint.load(), leaves)
    assert sorted(checkpoint.tokenizer) == ["merges.txt", "vocab.json"]


def test_min_dalle_weights_are_stored_in_half_precision_and_loaded_in_single(tmp_path: Path) -> None:
    leaves = weights()
    model = open_min_dalle(write_min_dalle(tmp_path, leaves)).load()
    assert same_weights(model, {name: leaf.half().float() for name, leaf in leaves.items()})


def test_scales_of_ones_that_only_min_dalle_has_are_left_out(tmp_path: Path) -> None:
    leaves = weights()
    write_min_dalle(tmp_path, leaves, scales=True, dtype=torch.float32)
    stored = torch.load(tmp_path / "encoder.pt", weights_only=True)
    assert stored["layers.0.glu.ln1.weight"].tolist() == [1.0] * TINY_BART.encoder_ffn_dim
    checkpoint = open_min_dalle(tmp_path)
    assert checkpoint.config == TINY_BART
    assert same_weights(checkpoint.load(), leaves)


def test_scales_other_than_ones_are_kept(tmp_path: Path) -> None:
    config = replace(TINY_BART, force_ln_scale=True)
    leaves = dict(random_bart(config).state_dict())
    write_min_dalle(tmp_path, leaves, dtype=torch.float32)
    checkpoint = open_min_dalle(tmp_path)
    assert checkpoint.config == config
    assert same_weights(checkpoint.load(), leaves)


def test_of_min_dalles_two_models_mega_is_taken_and_mini_by_its_name(tmp_path: Path) -> None:
    write_min_dalle(tmp_path, weights(seed=1), dtype=torch.float32)
    write_min_dalle(tmp_path, weights(seed=2), suffix="_mini", dtype=torch.float32)
    mega, mini = open_min_dalle(tmp_path), open_min_dalle(tmp_path / "decoder_mini.pt")
    assert same_weights(mega.load(), weights(seed=1))
    assert same_weights(mini.load(), weights(seed=2))
    assert mini.tokenizer == {"vocab.json": tmp_path / "vocab_mini.json", "merges.txt": tmp_path / "merges_mini.txt"}
    (tmp_path / "encoder.pt").unlink()
    (tmp_path / "decoder.pt").unlink()
    assert same_weights(open_min_dalle(tmp_path).load(), weights(seed=2))


def test_attention_heads_are_those_of_mini_and_mega(tmp_path: Path) -> None:
    min_dalle(tmp_path, weights())
    with pytest.raises(
        CheckpointError, match=r"how many attention heads a width of 16 has; known are 1024 \(16 heads\)"
    ):
        open_bart(tmp_path)


def golden_forms(folder: Path) -> dict[str, DalleBart]:
    convert_bart(GOLDEN_BART, folder)
    return {
        "dalle-mini": open_bart(GOLDEN_BART).load(),
        "min-dalle": open_min_dalle(GOLDEN_MIN_DALLE).load(),
        "vqbeam": open_bart(folder).load(),
    }


@pytest.mark.parametrize("form", ["dalle-mini", "min-dalle", "vqbeam"])
def test_the_golden_model_equals_the_reference_in_every_format(form: str, tmp_path: Path) -> None:
    model = golden_forms(tmp_path / "own")[form]
    mask = golden_bart("attention_mask")
    states = model.encode(golden_bart("input_ids"), mask)
    logits = model.logits(golden_bart("decoder_input_ids"), states, mask)
    torch.testing.assert_close(states, golden_bart("expected_encoder_last_hidden_state"), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, golden_bart("expected_logits"), atol=1e-4, rtol=0)


def test_weights_of_whole_numbers_are_named(tmp_path: Path) -> None:
    """As a quantised checkpoint has them, whose scales are elsewhere."""
    leaves = weights()
    leaves["decoder.lm_head.weight"] = leaves["decoder.lm_head.weight"].to(torch.int8)
    write_min_dalle(tmp_path, leaves, dtype=None)
    with pytest.raises(CheckpointError, match=r"not of real numbers: decoder\.lm_head\.weight is int8$"):
        open_min_dalle(tmp_path).load()


def test_layers_that_the_configuration_lacks_or_has_too_many_are_named(tmp_path: Path) -> None:
    more = replace(TINY_BART, encoder_layers=3)
    write_dalle_mini(tmp_path / "more", dict(random_bart(more).state_dict()), TINY_BART)
    with pytest.raises(CheckpointError, match=r"extra: encoder\.layers\.2\."):
        open_bart(tmp_path / "more").load()
    write_dalle_mini(tmp_path / "fewer", weights(), more)
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layers\.2\."):
        open_bart(tmp_path / "fewer").load()


def test_a_name_that_dalle_mini_does_not_have_is_extra(tmp_path: Path) -> None:
    stacked(tmp_path, weights())
    odd = {
        "model/encoder/layers/FlaxBartEncoderLayers/LayerNorm_9/bias": torch.zeros(2, 16),
        "model/encoder/layers/FlaxBartEncoderLayers/FlaxBartAttention_0/head_scale": torch.zeros(2, 1, 1, 2, 1),
    }
    (tmp_path / "flax_model.msgpack").write_bytes(flax_file(odd))
    with pytest.raises(CheckpointError, match=r"extra: model/encoder/.*LayerNorm_9/bias, .*Attention_0/head_scale$"):
        open_bart(tmp_path).load()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"use_alibi": True}, ConfigError, r"config\.json: .*use_alibi true is not supported"),
        ({"d_model": "wide"}, ConfigError, r"config\.json: .*d_model must be 1 to 16777216, not 'wide'"),
        ({"image_vocab_size": None}, ConfigError, r"config\.json: .*image_vocab_size must be 1 to 16777216, not None"),
        ({"generation": [1]}, ConfigError, r"config\.json: generation is \[1\], expected an object"),
    ],
)
def test_a_configuration_that_is_not_built_is_refused_with_its_file(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    stacked(tmp_path, weights())
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(error, match=message):
        open_bart(tmp_path)


def test_the_start_id_is_read_and_else_the_one_after_the_vocabulary(tmp_path: Path) -> None:
    stacked(tmp_path, weights())
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "decoder_start_token_id": 11}))
    assert open_bart(tmp_path).config.decoder_start_token_id == 11
    del values["decoder_start_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert open_bart(tmp_path).config.decoder_start_token_id == TINY_BART.image_vocab_size


def test_dalle_minis_own_defaults_are_used_for_missing_options(tmp_path: Path) -> None:
    stacked(tmp_path, weights())
    values = json.loads((tmp_path / "config.json").read_text())
    del values["encoder_ffn_dim"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert open_bart(tmp_path).config.encoder_ffn_dim == 4096


def broken(folder: Path, case: str) -> None:
    if case == "empty":
        folder.mkdir()
    elif case == "no config":
        (stacked(folder, weights()) / "config.json").unlink()
    elif case == "config of another model":
        (stacked(folder, weights()) / "config.json").write_text('{"model_type": "gpt2"}')
    elif case == "broken config":
        (stacked(folder, weights()) / "config.json").write_text("{")
    elif case == "bottomless config":
        (stacked(folder, weights()) / "config.json").write_text("[" * 100_000)
    elif case == "half":
        (min_dalle(folder, weights()) / "decoder.pt").unlink()
    elif case == "swapped halves":
        encoder, decoder = (min_dalle(folder, weights()) / f"{half}.pt" for half in ("encoder", "decoder"))
        content = encoder.read_bytes()
        encoder.write_bytes(decoder.read_bytes())
        decoder.write_bytes(content)
    elif case == "part":
        (split(folder, weights()) / "flax_model-00002-of-00003.msgpack").unlink()
    elif case == "cut safetensors":
        file = ours(folder, weights()) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    elif case == "vqgan":
        save_vqgan(random_vqgan(), folder, name="vqgan")
    elif case == "weights of another":
        ours(folder, weights())
        (ours(folder.parent / "other", weights(seed=1)) / "model.safetensors").replace(folder / "model.safetensors")
    elif case == "not weights":
        folder.mkdir()
        for half in ("encoder", "decoder"):
            torch.save({"a.weight": torch.zeros(2)}, folder / f"{half}.pt")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("empty", r"no DALL·E BART checkpoint here.*encoder\.pt with decoder\.pt.*found nothing"),
        ("no config", r"flax_model\.msgpack has no config\.json beside it"),
        ("config of another model", "describes no DALL·E BART.*gpt2"),
        ("broken config", r"config\.json: not JSON"),
        ("bottomless config", r"config\.json: not JSON"),
        ("half", r"decoder\.pt is missing beside its other half"),
        ("part", r"names flax_model-00002-of-00003\.msgpack, which the folder lacks"),
        ("cut safetensors", r"model\.safetensors: not a safetensors file, or cut short"),
        ("vqgan", r"describes a vqbeam-vqgan, where a vqbeam-dalle-bart was expected"),
        ("weights of another", r"config\.json and model\.safetensors do not belong together"),
        ("not weights", "not the weights of min-dalle's BART"),
        ("swapped halves", r"not the weights of min-dalle's BART \('decoder\.lm_head\.weight'\)"),
        ("absent", "no such file or folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_reported_when_it_is_opened(case: str, message: str, tmp_path: Path) -> None:
    broken(tmp_path / "model", case)
    with pytest.raises(CheckpointError, match=message):
        open_bart(tmp_path / "model")


def test_weights_cut_short_are_reported_when_they_are_loaded(tmp_path: Path) -> None:
    file = stacked(tmp_path, weights()) / "flax_model.msgpack"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"flax_model\.msgpack: the file is cut short"):
        open_bart(tmp_path).load()


@pytest.mark.parametrize("write", [stacked, unstacked, split])
def test_conversion_keeps_weights_configuration_and_tokenizer(
    write: Callable[[Path, dict[str, Tensor]], Path], tmp_path: Path
) -> None:
    leaves = weights()
    source = open_bart(write(tmp_path / "source", leaves))
    written = convert_bart(tmp_path / "source", tmp_path / "own", name="mine")
    assert same_weights(written.load(), leaves)
    assert written.config == source.config
    assert written.name == "mine"
    assert written.weights_id() == source.weights_id() == written.stored["weights_id"]
    names = ["enwiki-words-frequency.txt", "merges.txt", "tokenizer.json", "vocab.json"]
    assert sorted(written.tokenizer) == names
    assert all((tmp_path / "own" / name).read_text() == (tmp_path / "source" / name).read_text() for name in names)
    assert len(list((tmp_path / "own").iterdir())) == 2 + len(names)


def test_conversion_of_min_dalles_mini_gives_its_tokenizer_the_usual_names(tmp_path: Path) -> None:
    config = replace(open_bart(GOLDEN_BART).config, d_model=1024, encoder_attention_heads=16)
    config = replace(config, encoder_layers=1, decoder_layers=1, decoder_attention_heads=16)
    write_min_dalle(tmp_path / "flat", dict(random_bart(config).state_dict()), suffix="_mini")
    written = convert_bart(tmp_path / "flat", tmp_path / "own")
    assert written.config.encoder_attention_heads == 16
    assert written.name == "min-dalle_mini"
    assert {leaf.dtype for _, leaf in written.leaves()} == {torch.float16}
    assert json.loads((tmp_path / "own" / "vocab.json").read_text()) == {"file": "vocab_mini.json"}


def test_weights_have_one_fingerprint_in_every_format(tmp_path: Path) -> None:
    leaves = weights()
    ids = {open_bart(write(tmp_path / write.__name__, leaves)).weights_id() for write, _ in WRITERS}
    ids.add(open_min_dalle(min_dalle(tmp_path / "min_dalle", leaves)).weights_id())
    assert len(ids) == 1
    assert open_bart(stacked(tmp_path / "other", weights(seed=1))).weights_id() not in ids


def test_a_fingerprint_is_remembered_until_the_files_change(tmp_path: Path) -> None:
    """That it was not computed again shows on weights that changed behind its back, with size and time put back."""
    cache = tmp_path / "cache"
    file = stacked(tmp_path / "model", weights()) / "flax_model.msgpack"
    time = file.stat().st_mtime_ns
    first = open_bart(tmp_path / "model").weights_id(cache)
    assert first == open_bart(tmp_path / "model").weights_id()
    file.write_bytes(stacked(tmp_path / "other", weights(seed=1)).joinpath("flax_model.msgpack").read_bytes())
    os.utime(file, ns=(time, time))
    changed = open_bart(tmp_path / "model")
    assert changed.weights_id(cache) == first
    os.utime(file, ns=(time, time + 1))
    assert changed.weights_id(cache) == changed.weights_id() != first
    assert len(list((cache / "weights_ids").iterdir())) == 2


def test_whoever_the_umask_lets_can_read_a_model_and_the_cached_fingerprint(tmp_path: Path) -> None:
    """safetensors 0.8 and tempfile write files that only their owner can read."""
    before = os.umask(0o027)
    try:
        open_bart(ours(tmp_path / "model", weights())).weights_id(tmp_path / "cache")
        open_bart(stacked(tmp_path / "other", weights())).weights_id(tmp_path / "cache")
    finally:
        os.umask(before)
    made = [*(tmp_path / "model").iterdir(), *(tmp_path / "cache" / "weights_ids").iterdir()]
    assert "model.safetensors" in {path.name for path in made}
    assert {oct(path.stat().st_mode & 0o777) for path in made} == {"0o640"}
    assert len(made) > 2


def test_a_model_is_saved_with_its_tokenizer_in_the_precision_asked_for(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ("tokenizer.json", "notes.txt"))
    model = random_bart()
    save_bart(model, tmp_path / "own", name="tiny", dtype=torch.bfloat16, tokenizer=tokenizer_files(tmp_path))
    checkpoint = open_bart(tmp_path / "own")
    assert {leaf.dtype for _, leaf in checkpoint.leaves()} == {torch.bfloat16}
    assert sorted(entry.name for entry in (tmp_path / "own").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert model.decoder.lm_head.weight.dtype == torch.float32
    assert same_weights(checkpoint.load(), {name: leaf.bfloat16().float() for name, leaf in model.state_dict().items()})


def test_conversion_overwrites_no_model_and_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    ours(tmp_path / "own", weights())
    stacked(tmp_path / "source", weights(seed=1))
    with pytest.raises(CheckpointError, match=r"holds config\.json and model\.safetensors already"):
        convert_bart(tmp_path / "source", tmp_path / "own")
    assert same_weights(open_bart(tmp_path / "own").load(), weights())
    (tmp_path / "source" / "flax_model.msgpack").write_bytes(b"\x81")
    with pytest.raises(CheckpointError, match="cut short"):
        convert_bart(tmp_path / "source", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_how_images_are_best_drawn_survives_saving_and_converting(tmp_path: Path) -> None:
    save_bart(random_bart(seed=0), tmp_path / "a", name="a", generation={"guidance_scale": 2.0})
    convert_bart(tmp_path / "a", tmp_path / "b")
    assert read_generation_defaults(tmp_path / "b")["guidance_scale"] == 2.0
