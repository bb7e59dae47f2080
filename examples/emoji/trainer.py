"""One training step of the VQGAN, and the state that a run is resumed from.

Three stages. *warm-up*: no quantisation, noise instead. *joint*: quantised, the codebook started by k-means.
*decoder*: encoder and codebook fixed at their averaged weights, only the decoder goes on. Everything random in a
step is drawn from (seed, step), so a resumed run takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.emoji.codebook import MovingCodebook, kmeans, nearest
from examples.emoji.combinations import split_combinations
from examples.emoji.compose import compose_images, jittered
from examples.emoji.glyphs import GlyphSet
from models.vqgan.config import VQGANConfig
from models.vqgan.network import VQGAN, AttnBlock, Level, ResnetBlock, Upsample


@dataclass(frozen=True)
class Recipe:
    """The settings that decide the weights of a run. Shares are of `steps`."""

    steps: int
    batch_size: int = 16
    seed: int = 0
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    ramp_steps: int = 100
    weight_decay: float = 1e-4
    warm_up_share: float = 0.12
    decoder_share: float = 0.25
    jitter_share: float = 0.3
    mask_weight: float = 3.0
    commitment: float = 0.25
    warm_up_noise: float = 0.2
    warm_up_penalty: float = 0.002
    average_decay: float = 0.998
    kmeans_batches: int = 100

    @property
    def first_joint_step(self) -> int:
        return round(self.steps * self.warm_up_share)

    @property
    def first_decoder_step(self) -> int:
        return round(self.steps * (1 - self.decoder_share))

    def learning_rate_at(self, step: int) -> float:
        """Linear ramp, then half a cosine down to `final_learning_rate` at the last step."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        rate = self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine
        return rate * min(1.0, (step + 1) / max(1, self.ramp_steps))


def reconstruction_loss(output: Tensor, target: Tensor, alpha: Tensor, mask_weight: float) -> Tensor:
    """Mean over images of the root of the weighted mean square error.

    `output`, `target` [N, 3, H, W]; `alpha` in [0, 1], [N, 1, H, W]: a pixel weighs 1 + mask_weight * alpha.
    The root keeps the hard glyphs from outweighing the others, as a mean of decibels does.
    """
    weight = 1 + mask_weight * alpha
    error = ((output - target).square() * weight).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))
    return (error + 1e-6).sqrt().mean()


RESIDUAL_GAIN = 0.1


def initialise(model: VQGAN) -> None:
    """Convolutions that keep the variance of their input, residual branches that start small.

    With torch's own initialisation each convolution of the main path divides the variance by three, the latents
    drown in the residual branches, and training stays at the mean image for hundreds of steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            module.conv2.weight.data.mul_(RESIDUAL_GAIN)
        if isinstance(module, AttnBlock):
            module.proj_out.weight.data.mul_(RESIDUAL_GAIN)


class RepeatUpsample(Upsample):
    """`Upsample` by repetition instead of `F.interpolate`: the same numbers, other graph.

    In torch 2.13 on a CPU, `torch.compile` loses the gradient of `F.interpolate(mode="nearest")` on channels-last
    tensors under autocast: everything before the last up-sampling gets zeros, and training stalls at the mean image.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        repeated = x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)
        return self.conv(repeated.contiguous(memory_format=torch.channels_last))


def repeat_pixels(model: VQGAN) -> None:
    """Exchange every `Upsample` of `model` for a `RepeatUpsample` with the same convolution."""
    for level in model.decoder.modules():
        if isinstance(level, Level) and hasattr(level, "upsample"):
            conv = level.upsample.conv
            assert isinstance(conv, nn.Conv2d)
            level.upsample = RepeatUpsample(conv.in_channels)
            level.upsample.conv = conv


class Trainer:
    """The networks, the codebook, the optimiser and the averaged weights, at one step of a recipe."""

    def __init__(self, config: VQGANConfig, recipe: Recipe, glyphs: GlyphSet, *, compiled: bool = True) -> None:
        torch.manual_seed(recipe.seed)
        self.config, self.recipe, self.glyphs = config, recipe, glyphs
        self.train_pairs = split_combinations(glyphs.keys).train
        self.model = channels_last(VQGAN(config))
        self.model.quantize.requires_grad_(False)
        initialise(self.model)
        repeat_pixels(self.model)
        self.whiten_latents()
        self.averaged = channels_last(VQGAN(config)).requires_grad_(False).eval()
        self.averaged.load_state_dict(self.model.state_dict())
        self.codebook = MovingCodebook(config.n_embed, config.embed_dim)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        self.step = 0
        encode: Callable[[Tensor], Tensor] = self.model.latents
        decode: Callable[[Tensor], Tensor] = self.model.reconstruct
        self.encode, self.decode = (torch.compile(encode), torch.compile(decode)) if compiled else (encode, decode)

    @torch.no_grad()
    def whiten_latents(self) -> None:
        """Start the convolution before the quantiser at the leading principal components, scaled to unit variance.

        At its random start the latents are so small that the noise of the warm-up hides them, and training stalls.
        """
        hidden = self.model.encoder(self.batch(0)[0]).permute(0, 2, 3, 1).flatten(0, 2)
        mean = hidden.mean(0)
        values, vectors = torch.linalg.eigh((hidden - mean).T.cov())
        scale = values.flip(0)[: self.config.embed_dim].clamp(min=1e-8).rsqrt()
        weight = vectors.flip(1)[:, : self.config.embed_dim].T * scale[:, None]
        self.model.quant_conv.weight.copy_(weight[:, :, None, None])
        self.model.quant_conv.bias = nn.Parameter(-weight @ mean)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The images of a step: pixels in the model's range [N, 3, H, W] and alpha [N, 1, H, W], float32."""
        rng = np.random.default_rng([self.recipe.seed, step])
        count = self.recipe.batch_size
        pairs = self.train_pairs[rng.integers(0, len(self.train_pairs), count)]
        rgb, alpha = compose_images(self.glyphs, pairs, jittered(rng, count, self.recipe.jitter_share))
        return to_pixels(rgb, self.config), torch.from_numpy(alpha).float()[:, None] / 255.0

    def generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)

    def advance(self) -> dict[str, float]:
        """Takes one step; returns the values to log."""
        recipe, step = self.recipe, self.step
        if step == recipe.first_joint_step:
            self.start_codebook()
        if step == recipe.first_decoder_step:
            self.freeze_encoder()
        pixels, alpha = self.batch(step)
        random = self.generator(step)
        log: dict[str, float] = {}
        with torch.set_grad_enabled(step < recipe.first_decoder_step), torch.autocast("cpu", torch.bfloat16):
            latents = self.encode(pixels).float()
        if step < recipe.first_joint_step:
            noise = recipe.warm_up_noise * step / recipe.first_joint_step
            passed = latents + noise * torch.randn(latents.shape, generator=random)
            extra = recipe.warm_up_penalty * latents.square().mean()
        else:
            flat = latents.detach().reshape(-1, latents.shape[-1])
            codes = nearest(flat, self.codebook.codes)
            quantized = self.codebook.codes[codes].reshape(latents.shape)
            passed = latents + (quantized - latents).detach()
            extra = recipe.commitment * F.mse_loss(latents, quantized)
            log["codes_in_batch"] = float(len(codes.unique()))
            if step < recipe.first_decoder_step:
                log["revived"] = float(self.codebook.update(flat, codes, random))
        with torch.autocast("cpu", torch.bfloat16):
            output = self.decode(passed)
        error = reconstruction_loss(output.float(), pixels, alpha, recipe.mask_weight)
        (error + extra).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.update_average()
        return log | {"loss": float(error.detach()), "extra": float(extra.detach()), "norm": float(norm)}

    def update_average(self) -> None:
        decay = min(self.recipe.average_decay, self.step / (self.step + 10))
        mine = [p.data for p in self.averaged.parameters()]
        theirs = [p.data for p in self.model.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        self.averaged.quantize.codebook.data.copy_(self.codebook.codes)

    def start_codebook(self) -> None:
        """k-means on the latents of batches that training has seen."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = [
                self.encode(self.batch(step)[0]).float().reshape(-1, self.config.embed_dim)
                for step in range(self.recipe.kmeans_batches)
            ]
        centres = kmeans(torch.cat(latents), self.config.n_embed, self.generator(self.step))
        self.codebook.start(centres, self.recipe.batch_size * self.config.spec(name="").codes_per_image)

    def freeze_encoder(self) -> None:
        """Replaces the encoder by the averaged one, which takes no gradient."""
        for part in ("encoder", "quant_conv"):
            getattr(self.model, part).load_state_dict(getattr(self.averaged, part).state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "codebook": self.codebook.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`. The recipe is this trainer's own, so that a schedule can be cut short."""
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.codebook.load_state_dict(state["codebook"])
        self.step = state["step"]


def channels_last(model: VQGAN) -> VQGAN:
    """Lays the weights of the convolutions out channels-last."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def to_pixels(rgb: np.ndarray, config: VQGANConfig) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in the model's range, channels-last in memory."""
    low, high = config.pixel_range
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
