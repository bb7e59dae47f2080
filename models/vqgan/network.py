"""The VQGAN of taming-transformers and vqgan-jax, for inference: images to codes and back.

Architecture: Esser, Rombach, Ommer, "Taming Transformers for High-Resolution Image Synthesis", 2021.
Parameter names are those of taming's `state_dict`; `models/vqgan/checkpoint.py` renames the others to them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.quantiser import Quantiser, SignQuantiser, VectorQuantiser, search_rows
from models.tokenizer_network import TokenizerNetwork, pointwise
from models.vqgan.config import GROUPS, HIGH_SIGNS, SIGNS, VQGANConfig

NORM_EPS = 1e-6


def silu(x: Tensor) -> Tensor:
    """SiLU, in place except in training: fresh memory for activations costs a CPU as much as the arithmetic."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels_in, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels_out, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut: nn.Module = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.nin_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = self.conv2(silu(self.norm2(hidden)))
        return hidden.add_(self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions of the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=NORM_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        normed = self.norm(x)
        q, k, v = (conv(normed).permute(0, 2, 3, 1).reshape(n, 1, h * w, c) for conv in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj_out(attended.reshape(n, h, w, c).permute(0, 3, 1, 2)).add_(x)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the reference


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks at one resolution, each followed by attention if `attention`."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, attention: bool, resample: nn.Module | None):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1]) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(channels_out) for _ in range(blocks if attention else 0))
        if isinstance(resample, Downsample):
            self.downsample = resample
        elif resample is not None:
            self.upsample = resample
        self.has_resample = resample is not None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        if self.has_resample:
            x = self.downsample(x) if hasattr(self, "downsample") else self.upsample(x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        levels = config.levels_down
        first, last = config.ch, levels[-1].width
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                channels_in=levels[i - 1].width if i else first,
                channels_out=level.width,
                blocks=level.blocks,
                attention=level.attention,
                resample=Downsample(level.width) if i < len(levels) - 1 else None,
            )
            for i, level in enumerate(levels)
        )
        self.mid = Middle(last, config.middle_attention)
        self.norm_out = nn.GroupNorm(GROUPS, last, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(last, config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        levels = config.levels_up
        first, last = levels[-1].width, levels[0].width
        self.conv_in = nn.Conv2d(config.z_channels, first, 3, padding=1)
        self.mid = Middle(first, config.middle_attention)
        self.up = nn.ModuleList(
            Level(
                channels_in=levels[min(i + 1, len(levels) - 1)].width,
                channels_out=level.width,
                blocks=level.blocks,
                attention=level.attention,
                resample=Upsample(level.width) if i else None,
            )
            for i, level in enumerate(levels)
        )
        self.norm_out = nn.GroupNorm(GROUPS, last, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(last, config.out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))


class GumbelQuantizer(Quantiser):
    """Codes by the largest logit of a 1x1 convolution: taming's Gumbel variant with the sampling left out."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.embed_dim, config.n_embed, 1)
        self.embed = nn.Embedding(config.n_embed, config.embed_dim)

    @property
    def codebook(self) -> Tensor:
        return self.embed.weight

    def forward(self, latents: Tensor) -> Tensor:
        parts = latents.split(search_rows(latents, self.proj.out_channels))
        return torch.cat([pointwise(part, self.proj).argmax(1) for part in parts])

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.embed.weight)


def quantiser(config: VQGANConfig) -> Quantiser:
    """By the name of its rule."""
    if config.quantizer == "gumbel":
        return GumbelQuantizer(config)
    if config.quantizer in (SIGNS, HIGH_SIGNS):
        return SignQuantiser(config.embed_dim, highest_first=config.quantizer == HIGH_SIGNS)
    return VectorQuantiser(config.n_embed, config.embed_dim, config.quantizer)


class VQGAN(TokenizerNetwork):
    """Encoder, quantiser and decoder of one `config`.

    `latents`, `quantize`, `embed` and `reconstruct` are differentiable, for training and comparison. With
    `encoder=False` there is only `decode` (min-dalle), with `decoder=False` only `encode`.
    """

    config: VQGANConfig

    def __init__(self, config: VQGANConfig, *, encoder: bool = True, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        if encoder:
            self.encoder = Encoder(config)
            self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.quantize = quantiser(config)
        if decoder:
            self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
            self.decoder = Decoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        return pointwise(self.encoder(pixels).float().permute(0, 2, 3, 1), self.quant_conv)

    def reconstruct(self, quantized: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(quantized.permute(0, 3, 1, 2)))
