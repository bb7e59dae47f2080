from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.errors import CheckpointError, ConfigError
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN
from tests.support.vqgan_checkpoints import TINY, random_vqgan


@pytest.mark.parametrize("ch_mult", [(1,), (1, 1, 2), (1, 1, 1, 2), (1, 1, 1, 1, 2)])
def test_every_depth_gives_its_grid_of_codes_and_the_image_back(ch_mult: tuple[int, ...]) -> None:
    config = replace(TINY, ch_mult=ch_mult, resolution=32, attn_resolutions=(8, 32 // 2 ** (len(ch_mult) - 1)))
    model = random_vqgan(config)
    codes = model.encode(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert config.factor == 2 ** (len(ch_mult) - 1)
    assert codes.shape == (2, config.spec(name="").codes_per_image)
    assert model.decode(codes).shape == (2, 32, 32, 3)


def test_codes_are_in_raster_order() -> None:
    model = random_vqgan()
    latents = torch.zeros(1, 8, 8, 4)
    latents[0, 2, 5] = model.quantize.codebook[17]
    assert model.codes(latents)[0, 2 * 8 + 5] == 17


def test_of_equal_distances_the_lower_code_wins() -> None:
    model = random_vqgan()
    model.quantize.codebook[20] = model.quantize.codebook[4]
    assert (model.quantize(model.quantize.codebook[20:21])).item() == 4


def test_the_nearest_code_is_found_however_many_latents_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_vqgan()
    latents = torch.randn(100, 4)
    expected = torch.cdist(latents.double(), model.quantize.codebook.double()).argmin(1)
    assert torch.equal(model.quantize(latents), expected)
    monkeypatch.setattr("models.quantiser.SEARCH_CELLS", {"cpu": 7 * 32})
    assert torch.equal(model.quantize(latents), expected)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_pixels_are_scaled_to_the_range_of_the_checkpoint(pixel_range: tuple[float, float]) -> None:
    model = random_vqgan(replace(TINY, pixel_range=pixel_range))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 16, 8)[..., None].expand(1, 16, 16, 3)
    model.encode(images)
    assert (seen[0].min().item(), seen[0].max().item()) == pytest.approx(pixel_range)


def test_images_are_rounded_and_clipped_from_the_range_of_the_checkpoint() -> None:
    model = random_vqgan(replace(TINY, pixel_range=(-1.0, 1.0)))
    model.reconstruct = lambda quantized: torch.tensor([-3.0, -1.0, 0.0, 0.999, 7.0]).expand(1, 3, 1, 5)
    assert model.decode(torch.zeros(1, 64, dtype=torch.long))[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantizer": "product"}, "quantizer must be one of nearest, gumbel, cosine, .* not 'product'"),
        ({"in_channels": 1}, "only RGB models"),
        ({"resolution": 100}, "resolution 100 is not a multiple of 16"),
        ({"ch": 40}, "multiples of 32"),
        ({"n_embed": 0}, "n_embed must be 1 to 16777216, not 0"),
        ({"embed_dim": 8.0}, r"embed_dim must be 1 to 16777216, not 8\.0"),
        ({"ch": 10**20}, "ch must be 1 to 16777216"),
        ({"num_res_blocks": "2"}, "num_res_blocks must be 1 to 256, not '2'"),
        ({"ch_mult": []}, r"ch_mult must be 1 to 256, not \(\)"),
        ({"ch_mult": [1, -1]}, "ch_mult must be 1 to 256"),
        ({"pixel_range": [1]}, r"pixel_range must be two numbers, not \[1\]"),
        ({"pixel_range": ["0", "1"]}, "pixel_range must be two numbers"),
        ({"pixel_range": [1, 0]}, "pixel_range .* is empty"),
        ({"use_linear_attn": True}, "use_linear_attn=True is not supported"),
        ({"tanh_out": True}, "tanh_out=True is not supported"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_its_option(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VQGANConfig.from_dict(values)


def test_a_configuration_survives_its_dictionary() -> None:
    config = replace(TINY, quantizer="gumbel", pixel_range=(-1.0, 1.0))
    assert VQGANConfig.from_dict({**config.to_dict(), "architectures": ["del"]}) == config


@pytest.mark.parametrize(("part", "what"), [("encoder", "codes"), ("decoder", "images")])
def test_weights_that_give_no_numbers_are_refused_and_nothing_is_made_of_them(part: str, what: str) -> None:
    model = random_vqgan()
    getattr(model, part).conv_out.bias[0] = torch.nan
    with pytest.raises(
        CheckpointError, match=f"the VQGAN makes {what} that are no numbers in float32: its weights are damaged; copy"
    ):
        model.decode(model.encode(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)))


def test_activations_past_the_range_of_float16_are_refused() -> None:
    model = random_vqgan()
    model.decoder.conv_in.weight.mul_(1e6)
    codes = torch.zeros(1, 64, dtype=torch.long)
    assert model.decode(codes).shape == (1, 16, 16, 3)
    with pytest.raises(CheckpointError, match="no numbers in float16: choose float32 or bfloat16, or copy"):
        model.for_inference(torch.device("cpu"), torch.float16).decode(codes)


def test_inference_in_half_precision_keeps_the_quantiser_in_float32() -> None:
    model = VQGAN(TINY).for_inference(torch.device("cpu"), torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {model.quant_conv.weight.dtype, model.quantize.codebook.dtype} == {torch.float32}
    assert model.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(weight.requires_grad for weight in model.parameters())
