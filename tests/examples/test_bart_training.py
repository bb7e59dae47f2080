from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from examples.emoji import train_bart
from examples.emoji.bart_trainer import BLANK, BartRecipe, BartTrainer, TokenSet, code_loss, is_of_text
from examples.emoji.caption_tokenizer import learn_tokenizer, save_tokenizer
from examples.emoji.caption_variety import all_captions, say, subject
from examples.emoji.train_bart import caption_encoder, held_out_loss, read_tokens
from examples.emoji.training_run import save_checkpoint
from models.bart.checkpoint import open_bart
from models.bart.config import DalleBartConfig
from models.bart.normalizer import TextNormalizer
from models.bart.text import open_text_encoder
from tests.examples.same_state import assert_same
from tests.examples.synthetic_glyphs import synthetic_glyphs
from tests.support.paths import EMOJI

THINGS = ["a red apple", "a rocket", "grapes", "an owl"]
BACKGROUNDS = ["blue", "orange", "white", "blue"]
CAPTIONS = [text for thing, b in zip(THINGS, BACKGROUNDS, strict=True) for text in all_captions(thing, b)]
TINY = DalleBartConfig(
    encoder_vocab_size=300,
    image_vocab_size=16,
    image_length=4,
    max_text_length=32,
    d_model=16,
    encoder_layers=1,
    encoder_ffn_dim=16,
    encoder_attention_heads=2,
    decoder_layers=1,
    decoder_ffn_dim=16,
    decoder_attention_heads=2,
    decoder_start_token_id=16,
    normalize_text=True,
)
CODES = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 0]])
TOKENS = TokenSet(CODES, THINGS, BACKGROUNDS, [True] * 4)
RECIPE = BartRecipe(steps=6, batch_size=8, ramp_steps=2)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_tokenizer([TextNormalizer()(text, text) for text in CAPTIONS], TINY.encoder_vocab_size)


def trained(tokenizer: Tokenizer, steps: int, recipe: BartRecipe = RECIPE, *, compiled: bool = False) -> BartTrainer:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch before 2.9 has no Muon")
    trainer = BartTrainer(TINY, recipe, TOKENS, caption_encoder(tokenizer), compiled=compiled)
    for _ in range(steps):
        trainer.advance()
    return trainer


def test_a_resumed_run_equals_one_that_was_never_stopped(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(trained(tokenizer, 3), tmp_path)
    resumed = trained(tokenizer, 0)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for _ in range(3):
        resumed.advance()
    assert_same(resumed.state_dict(), trained(tokenizer, 6).state_dict())


def test_training_learns_what_codes_a_caption_has(tokenizer: Tokenizer) -> None:
    recipe = BartRecipe(steps=150, batch_size=16, ramp_steps=5, average_decay=0.9)
    trainer = trained(tokenizer, 0, recipe)
    before = held_out_loss(trainer, TOKENS)
    for _ in range(recipe.steps):
        trainer.advance()
    assert before > 2.5  # near the logarithm of 16
    assert held_out_loss(trainer, TOKENS) < 0.5


def test_a_tenth_of_the_captions_is_blank(tokenizer: Tokenizer) -> None:
    trainer = trained(tokenizer, 0, BartRecipe(steps=1, batch_size=2000))
    input_ids, mask, _, _ = trainer.batch(0)
    blank = input_ids[:, : len(BLANK)].eq(torch.tensor(BLANK)).all(1)
    assert torch.equal(blank, mask.sum(1) == len(BLANK))
    assert 0.08 < float(blank.float().mean()) < 0.12


def test_a_caption_has_room_in_the_text_encoder(tokenizer: Tokenizer) -> None:
    narrow = BartTrainer(replace(TINY, max_text_length=16), RECIPE, TOKENS, caption_encoder(tokenizer), compiled=False)
    rng = np.random.default_rng(0)
    lengths = [len(narrow.caption(n % len(THINGS), rng)) for n in range(200)]
    assert max(lengths) <= 16 < max(len(trained(tokenizer, 0).caption(n % len(THINGS), rng)) for n in range(200))


def test_training_goes_on_from_given_weights(tokenizer: Tokenizer) -> None:
    known = trained(tokenizer, 2)
    started = trained(tokenizer, 0)
    started.start_from(known.model.state_dict())
    assert_same(started.averaged.state_dict(), known.model.state_dict())
    started.advance()
    assert started.step == 1
    assert not torch.equal(started.model.decoder.lm_head.weight, known.model.decoder.lm_head.weight)


def test_the_embedded_weights_are_gone_on_from_and_the_rest_of_the_decoder_kept(tmp_path: Path) -> None:
    """The command itself."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch before 2.9 has no Muon")
    glyphs = synthetic_glyphs()
    sides = {f"side_{side}": pixels for side, pixels in glyphs.pixels.items()}
    np.savez(tmp_path / "glyphs.npz", allow_pickle=False, keys=glyphs.keys, names=glyphs.names, **sides)
    codes = np.random.default_rng(0).integers(0, 1024, (4, 64)).tolist()
    rows = {
        "encoding": pa.array(codes, pa.list_(pa.uint16(), 64)),
        "caption": [all_captions(thing, b)[0] for thing, b in zip(THINGS, BACKGROUNDS, strict=True)],
        "background": BACKGROUNDS,
        "split": ["train", "held_out", "train", "train"],
    }
    (tmp_path / "tokens").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "tokens" / "00000.parquet")
    start = EMOJI / "dalle_bart"
    words = ("--tokens", tmp_path / "tokens", "--glyphs", tmp_path / "glyphs.npz", "--start", start, "--text_only",
             "--dtype", "float32", "--no_compile", "--steps", 2, "--batch_size", 2,
             "--output", tmp_path / "run")  # fmt: skip
    train_bart.main([str(word) for word in words])
    before, after = (open_bart(folder).load().state_dict() for folder in (start, tmp_path / "run" / "model"))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "encoder.layers.0.self_attn.q_proj.weight" in changed
    assert changed == {name for name in changed if is_of_text(name)}
    assert (tmp_path / "run" / "model" / "merges.txt").read_bytes() == (start / "merges.txt").read_bytes()


def test_products_in_float32_are_those_of_the_weights_themselves(tokenizer: Tokenizer) -> None:
    plain = trained(tokenizer, 0, replace(RECIPE, dtype="float32"))
    batch = plain.batch(0)
    assert torch.equal(plain.loss(*batch), code_loss(plain.model, *batch))
    assert not torch.equal(trained(tokenizer, 0).loss(*batch), plain.loss(*batch))


def test_codes_are_spoilt_where_they_are_fed_and_nowhere_else(tokenizer: Tokenizer) -> None:
    trainer = trained(tokenizer, 0, BartRecipe(steps=1, batch_size=2000, most_spoilt=0.4))
    _, _, fed, codes = trainer.batch(0)
    assert all(row in CODES.tolist() for row in codes.tolist())
    assert 0.15 < float((fed != codes).float().mean()) < 0.22  # half of 0.4, less those that got the same code


def test_without_spoiling_the_decoder_is_fed_the_image(tokenizer: Tokenizer) -> None:
    _, _, fed, codes = trained(tokenizer, 0, BartRecipe(steps=1, most_spoilt=0.0)).batch(0)
    assert torch.equal(fed, codes)


def test_the_loss_of_a_code_does_not_depend_on_the_codes_from_there_on(tokenizer: Tokenizer) -> None:
    trainer = trained(tokenizer, 2)
    input_ids, mask, _, codes = trainer.batch(0)
    later = codes.clone()
    later[:, -1] = 0  # the last code is never fed
    expected = code_loss(trainer.model, input_ids, mask, codes, codes)
    assert torch.equal(code_loss(trainer.model, input_ids, mask, later, codes), expected)


def test_rates_rise_stay_and_fall_to_zero() -> None:
    recipe = BartRecipe(steps=1000, ramp_steps=100, decay_share=0.3)
    assert recipe.rate_at(0) == pytest.approx(0.01)
    assert recipe.rate_at(100) == recipe.rate_at(699) == 1.0
    assert recipe.rate_at(850) == pytest.approx(0.5)
    assert recipe.rate_at(1000) == 0.0


def test_the_tokenizer_is_one_that_prompts_can_be_encoded_with(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    text = "An owl, Blue background!"
    ids = open_text_encoder(tmp_path, TINY).encode([text], ["k"]).input_ids[0]
    expected = caption_encoder(tokenizer)("an owl, blue background")
    assert ids[: len(expected)].tolist() == expected
    assert expected[0] == 0
    assert expected[-1] == 2


def test_a_caption_is_taken_apart_and_said_in_other_words() -> None:
    assert subject("an owl on an orange background", "orange") == "an owl"
    assert say("emoji of {a}, {b} background", "a rocket", "yellow") == "emoji of a rocket, yellow background"
    assert say("{n} on {ab} background", "an owl", "orange") == "owl on an orange background"
    with pytest.raises(ValueError, match="does not end in"):
        subject("an owl", "orange")


def test_tokens_are_read_as_encode_writes_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "encoding": pa.array(CODES.tolist(), pa.list_(pa.uint16(), 4)),
            "caption": [all_captions(thing, b)[0] for thing, b in zip(THINGS, BACKGROUNDS, strict=True)],
            "background": BACKGROUNDS,
            "split": ["train", "held_out", "train", "train"],
        }
    )
    pq.write_table(table.slice(0, 2), tmp_path / "00000.parquet")
    pq.write_table(table.slice(2), tmp_path / "00001.parquet")
    tokens = read_tokens(tmp_path, "train", frozenset({("grapes", "white"), ("a red apple", "white")}))
    assert torch.equal(tokens.codes, CODES[[0, 2, 3]])
    assert tokens.things == ["a red apple", "grapes", "an owl"]
    assert tokens.clear == [False, True, False]
    assert read_tokens(tmp_path, "held_out", frozenset()).backgrounds == ["orange"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_training_has_the_gradients_of_plain_training(tokenizer: Tokenizer) -> None:
    def gradients(compiled: bool) -> dict[str, torch.Tensor]:
        trainer = trained(tokenizer, 0, compiled=compiled)
        trainer.loss(*trainer.batch(0)).backward()
        return {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}

    compiled, plain = gradients(True), gradients(False)
    assert plain["decoder.layers.0.encoder_attn.k_proj.weight"].norm() > 0
    for name, expected in plain.items():
        cosine = torch.nn.functional.cosine_similarity(compiled[name].flatten(), expected.flatten(), 0)
        assert cosine > 0.95, name  # bfloat16 rounds differently in fused kernels
