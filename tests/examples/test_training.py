from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.emoji.codebook import MovingCodebook, kmeans, nearest
from examples.emoji.train_vqgan import CONFIG
from examples.emoji.trainer import (
    Recipe,
    RepeatUpsample,
    Trainer,
    channels_last,
    initialise,
    reconstruction_loss,
    repeat_pixels,
)
from examples.emoji.training_run import save_checkpoint
from models.vqgan.checkpoint import save_vqgan
from models.vqgan.network import VQGAN, Upsample
from tests.examples.same_state import assert_same
from tests.examples.synthetic_glyphs import synthetic_glyphs
from tests.support.vqgan_checkpoints import load_vqgan

GLYPHS = synthetic_glyphs()
TINY = replace(CONFIG, ch_mult=(1, 1, 1, 1), z_channels=16, embed_dim=4, n_embed=32)
RECIPE = Recipe(steps=8, batch_size=2, ramp_steps=2, warm_up_share=0.25, decoder_share=0.25, kmeans_batches=2)


def trained(steps: int) -> Trainer:
    trainer = Trainer(TINY, RECIPE, GLYPHS, compiled=False)
    for _ in range(steps):
        trainer.advance()
    return trainer


@pytest.fixture(scope="module")
def whole_run() -> Trainer:
    return trained(RECIPE.steps)


@pytest.mark.parametrize("stopped_after", [1, 4, 7])  # in the warm-up, the joint and the decoder stage
def test_a_resumed_run_equals_one_that_was_never_stopped(
    stopped_after: int, whole_run: Trainer, tmp_path: Path
) -> None:
    save_checkpoint(trained(stopped_after), tmp_path)
    resumed = Trainer(TINY, RECIPE, GLYPHS, compiled=False)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for _ in range(RECIPE.steps - stopped_after):
        resumed.advance()
    assert_same(resumed.state_dict(), whole_run.state_dict())


def test_the_decoder_stage_leaves_encoder_and_codebook_as_they_are() -> None:
    trainer = trained(RECIPE.first_decoder_step + 1)
    encoder = copy.deepcopy(trainer.averaged.encoder.state_dict())
    codebook, decoder = trainer.codebook.codes.clone(), trainer.model.decoder.conv_out.weight.clone()
    trainer.advance()
    assert all(torch.equal(value, encoder[name]) for name, value in trainer.averaged.encoder.state_dict().items())
    assert torch.equal(trainer.codebook.codes, codebook)
    assert not torch.equal(trainer.model.decoder.conv_out.weight, decoder)


def test_the_stored_model_is_the_averaged_one(tmp_path: Path) -> None:
    trainer = trained(5)
    save_vqgan(trainer.averaged, tmp_path, name="tiny")
    model = load_vqgan(tmp_path)
    assert torch.equal(model.quantize.codebook, trainer.codebook.codes)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(model.encode(images), trainer.averaged.encode(images))


def test_a_step_sees_only_pairs_of_the_training_split() -> None:
    trainer = Trainer(TINY, RECIPE, GLYPHS, compiled=False)
    pixels, alpha = trainer.batch(3)
    again, _ = trainer.batch(3)
    other, _ = trainer.batch(4)
    assert pixels.shape == (2, 3, 64, 64)
    assert alpha.shape == (2, 1, 64, 64)
    assert torch.equal(pixels, again)
    assert not torch.equal(pixels, other)


def test_the_learning_rate_ends_where_the_recipe_says() -> None:
    recipe = Recipe(steps=1000)
    assert recipe.learning_rate_at(0) < 0.02 * recipe.learning_rate
    assert max(map(recipe.learning_rate_at, range(1000))) < recipe.learning_rate
    assert recipe.learning_rate_at(1000) == pytest.approx(recipe.final_learning_rate)


def test_repeated_pixels_are_the_same_as_interpolation_and_pass_the_same_gradient() -> None:
    ours, theirs = RepeatUpsample(8), Upsample(8)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 4, 4)
    inputs = [x.clone().requires_grad_(True) for _ in range(2)]
    outputs = [module(given) for module, given in zip((ours, theirs), inputs, strict=True)]
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_training_has_the_gradients_of_plain_training() -> None:
    torch.manual_seed(0)
    model = channels_last(VQGAN(replace(TINY, ch_mult=(1, 1))))
    initialise(model)
    repeat_pixels(model)
    pixels = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)

    def both_ways(given: Tensor) -> Tensor:
        return model.reconstruct(model.latents(given))

    def gradients(network: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = network(pixels)
        (output.float() - pixels).square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    compiled, plain = gradients(torch.compile(both_ways)), gradients(both_ways)
    assert plain["encoder.conv_in.weight"].norm() > 1e-3
    for name, expected in plain.items():
        if expected.norm() > 1e-3:  # biases before a normalisation have no gradient but rounding
            assert (compiled[name] - expected).norm() < 0.2 * expected.norm(), name


def test_the_loss_weighs_the_glyph_more_than_the_background() -> None:
    target = torch.zeros(1, 3, 4, 4)
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., :2] = 1
    inside, outside = target.clone(), target.clone()
    inside[..., :2] = 1
    outside[..., 2:] = 1
    ratio = reconstruction_loss(inside, target, alpha, 3.0) / reconstruction_loss(outside, target, alpha, 3.0)
    assert float(ratio) == pytest.approx(2.0, rel=1e-4)  # a root of four


def test_kmeans_finds_well_separated_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).reshape(-1, 2)
    found = kmeans(points, 3, generator)
    assert sorted(nearest(centres, found).tolist()) == [0, 1, 2]
    assert float((found[nearest(centres, found)] - centres).abs().max()) < 0.1


def test_a_code_that_nothing_uses_is_revived_at_a_latent_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    book = MovingCodebook(2, 2)
    book.start(torch.tensor([[0.0, 0.0], [100.0, 100.0]]), vectors_per_step=8)
    vectors = 0.1 * torch.randn(8, 2, generator=generator)
    revived = sum(book.update(vectors, nearest(vectors, book.codes), generator) for _ in range(600))
    assert revived >= 1
    assert float(book.codes.abs().max()) < 1


def test_moving_averages_survive_a_checkpoint() -> None:
    book = MovingCodebook(4, 2)
    book.start(torch.randn(4, 2), vectors_per_step=8)
    buffer = io.BytesIO()
    torch.save(book.state_dict(), buffer)
    buffer.seek(0)
    other = MovingCodebook(4, 2)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other.codes, book.codes)
    assert torch.equal(other.sums, book.sums)
