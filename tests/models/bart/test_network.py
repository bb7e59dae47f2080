"""The network against outputs of dalle-mini, with the published options and with every other that is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bart.checkpoint import open_bart
from models.bart.config import BUILT, DalleBartConfig
from models.bart.network import DalleBart
from models.errors import ConfigError
from tests.support.bart_checkpoints import GOLDEN_BART, GOLDEN_OPTIONS, TINY_BART, golden_bart

OPTIONS = sorted(folder.name for folder in GOLDEN_OPTIONS.iterdir() if folder.is_dir())


def outputs(model: DalleBart, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        states = model.encode(given["input_ids"], given["attention_mask"])
        return states, model.logits(given["decoder_input_ids"], states, given["attention_mask"])


def expected(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in np.load(folder / "expected.npz").items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_equals_the_reference(option: str) -> None:
    given = expected(GOLDEN_OPTIONS / option)
    states, logits = outputs(open_bart(GOLDEN_OPTIONS / option).load(), given)
    torch.testing.assert_close(states, given["states"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, given["logits"], atol=1e-5, rtol=0)


def test_every_value_that_is_built_has_a_golden_output() -> None:
    configs = [open_bart(GOLDEN_OPTIONS / option).config for option in OPTIONS]
    for name, values in BUILT.items():
        if len(values) > 1:
            assert {getattr(config, name) for config in configs} == set(values), name


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_the_golden_outputs_tell_activations_apart(activation: str) -> None:
    """gelu and its approximation are closest: they differ by more than the tolerance above."""
    given = expected(GOLDEN_OPTIONS / "unstacked")
    model = open_bart(GOLDEN_OPTIONS / "unstacked").load()
    other = DalleBart(replace(model.config, activation_function=activation))
    other.load_state_dict(model.state_dict())
    difference = (outputs(other, given)[1] - given["logits"]).abs().max().item()
    assert (difference < 1e-5) == (activation == "gelu")


@pytest.mark.parametrize("suffix", ["", "_uncond"])
def test_states_and_logits_equal_the_reference(suffix: str) -> None:
    ids, mask = golden_bart(f"input_ids{suffix}"), golden_bart(f"attention_mask{suffix}")
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": golden_bart("decoder_input_ids")}
    states, logits = outputs(open_bart(GOLDEN_BART).load(), given)
    torch.testing.assert_close(states, golden_bart(f"expected_encoder_last_hidden_state{suffix}"), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, golden_bart(f"expected_logits{suffix}"), atol=1e-4, rtol=0)


def test_masked_pieces_change_nothing() -> None:
    model = open_bart(GOLDEN_BART).load()
    ids, mask, codes = (golden_bart(name) for name in ("input_ids", "attention_mask", "decoder_input_ids"))
    other = torch.where(mask.bool(), ids, 7)
    assert not torch.equal(ids, other)
    expected = outputs(model, {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": codes})[1]
    logits = outputs(model, {"input_ids": other, "attention_mask": mask, "decoder_input_ids": codes})[1]
    torch.testing.assert_close(logits, expected, atol=0, rtol=0)


def test_a_code_changes_no_logits_before_it() -> None:
    model = open_bart(GOLDEN_BART).load()
    given = {name: golden_bart(name) for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    before = outputs(model, given)[1]
    given["decoder_input_ids"] = given["decoder_input_ids"].clone()
    given["decoder_input_ids"][:, 9] = (given["decoder_input_ids"][:, 9] + 1) % 64
    after = outputs(model, given)[1]
    torch.testing.assert_close(after[:, :9], before[:, :9], atol=0, rtol=0)
    assert not torch.allclose(after[:, 9:], before[:, 9:], atol=1e-3)


REFUSED = [
    ("activation_function", "smelu", "not supported, only gelu or gelu_new or relu or silu or swish"),
    ("activation_function", "quick_gelu", "activation_function quick_gelu is not supported"),
    ("ln_positions", "swinv2", "ln_positions swinv2 is not supported, only normformer or preln"),
    ("ln_positions", "cogview", "ln_positions cogview is not supported"),
    ("ln_positions", "postln", "ln_positions postln is not supported"),
    ("ln_positions", "deepnet", "ln_positions deepnet is not supported"),
    ("ln_positions", "subln", "ln_positions subln is not supported"),
    ("ln_type", "batchnorm", "ln_type batchnorm is not supported, only layernorm or rmsnorm"),
    ("sinkhorn_iters", 3, "sinkhorn_iters 3 is not supported, only 1"),
    ("tie_word_embeddings", True, "tie_word_embeddings true is not supported, only false"),
    ("use_absolute_position_embeddings", False, "use_absolute_position_embeddings false is not supported"),
    ("use_alibi", True, "use_alibi true is not supported"),
    ("use_cosine_attention", True, "use_cosine_attention true is not supported"),
    ("use_deepnet_scaling", True, "use_deepnet_scaling true is not supported"),
    ("use_final_ln_decoder", False, "use_final_ln_decoder false is not supported"),
    ("use_head_scale", True, "use_head_scale true is not supported"),
    ("use_swin_position_embeddings", True, "use_swin_position_embeddings true is not supported"),
    ("use_bias", 1, "use_bias 1 is not supported, only false or true"),
    ("normalize_text", "yes", "normalize_text must be true or false, not 'yes'"),
    ("d_model", "1024", "d_model must be 1 to 16777216, not '1024'"),
    ("encoder_layers", True, "encoder_layers must be 1 to 1024, not True"),
    ("decoder_layers", 0, "decoder_layers must be 1 to 1024, not 0"),
    ("decoder_layers", 10**9, "decoder_layers must be 1 to 1024, not 1000000000"),
    ("encoder_vocab_size", 10**30, "encoder_vocab_size must be 1 to 16777216, not 1000"),
    ("encoder_attention_heads", 7, "d_model 16 is not a multiple of 7 encoder heads"),
    ("decoder_start_token_id", 13, "decoder_start_token_id 13 is past the last row of the embedding, 12"),
    ("decoder_start_token_id", -1, "decoder_start_token_id must be 0 to 16777216, not -1"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_is_not_built_is_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DalleBartConfig.from_dict({**TINY_BART.to_dict(), name: value})


def test_every_option_that_is_not_built_in_full_is_among_the_refused() -> None:
    assert set(BUILT) - {"force_ln_scale", "scale_embedding", "use_glu", "use_final_ln_encoder"} <= {
        name for name, _, _ in REFUSED
    }


def test_what_only_says_how_training_began_is_no_reason_to_refuse() -> None:
    assert DalleBartConfig.from_dict({**TINY_BART.to_dict(), "use_subln_init": True, "init_std": 0.01}) == TINY_BART


def test_a_configuration_survives_json() -> None:
    config = replace(TINY_BART, use_bias=True, ln_type="rmsnorm", normalize_text=True)
    assert DalleBartConfig.from_dict({**config.to_dict(), "dropout": 0.1, "model_type": "dallebart"}) == config
