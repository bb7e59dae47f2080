"""The networks of MaskGIT's and Open-MAGVIT2's tokenizers, for inference: convolutions without attention.

Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation", 2024 (MAGVIT-v2), after Luo et al.,
"Open-MAGVIT2", 2024; Chang et al., "MaskGIT: Masked Generative Image Transformer", 2022, as ported by 1d-tokenizer.
Both have the same levels; they differ in shortcuts, in how they change the resolution, and in the norms of a decoder
that reads the mean and the deviation of the code vectors of the whole grid (`adaptive`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tokenizer_network import TokenizerNetwork
from models.vqgan.config import GROUPS, MAGVIT2, LevelShape, VQGANConfig
from models.vqgan.network import NORM_EPS, quantiser, silu


class Block(nn.Module):
    """A residual block without biases. MaskGIT's shortcut takes what the second convolution gives, not the input."""

    def __init__(self, channels_in: int, channels_out: int, shortcut_of_input: bool) -> None:
        super().__init__()
        self.shortcut_of_input = shortcut_of_input
        self.norm1 = nn.GroupNorm(GROUPS, channels_in, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(GROUPS, channels_out, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.has_shortcut = channels_in != channels_out
        if self.has_shortcut:
            taken = channels_in if shortcut_of_input else channels_out
            self.nin_shortcut = nn.Conv2d(taken, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = self.conv2(silu(self.norm2(hidden)))
        if not self.has_shortcut:
            return hidden.add_(x)
        return hidden + self.nin_shortcut(x if self.shortcut_of_input else hidden)


def blocks(widths: list[int], magvit2: bool) -> nn.ModuleList:
    return nn.ModuleList(Block(widths[i], widths[i + 1], magvit2) for i in range(len(widths) - 1))


class AdaptiveNorm(nn.Module):
    """A group norm whose scale and shift come from the code vectors of the whole grid."""

    def __init__(self, channels: int, code_width: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(code_width, channels)
        self.beta = nn.Linear(code_width, channels)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        values = vectors.flatten(2)  # [N, D, h*w]
        scale = self.gamma((values.var(2) + NORM_EPS).sqrt())
        shift = self.beta(values.mean(2))
        return F.group_norm(x, GROUPS, eps=NORM_EPS) * scale[:, :, None, None] + shift[:, :, None, None]


class EncoderLevel(nn.Module):
    """The blocks at one resolution, then half of it unless it is the `last`."""

    def __init__(self, channels_in: int, level: LevelShape, magvit2: bool, last: bool) -> None:
        super().__init__()
        self.block = blocks([channels_in] + [level.width] * level.blocks, magvit2)
        self.pools = not (last or magvit2)
        self.downsample = (
            nn.Conv2d(level.width, level.width, 3, stride=2, padding=1) if magvit2 and not last else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return F.avg_pool2d(x, 2) if self.pools else self.downsample(x)


class DecoderLevel(nn.Module):
    """The blocks at one resolution, then twice of it unless it is the `finest`."""

    def __init__(self, channels_in: int, level: LevelShape, magvit2: bool, finest: bool) -> None:
        super().__init__()
        self.magvit2, self.finest = magvit2, finest
        self.block = blocks([channels_in] + [level.width] * level.blocks, magvit2)
        if not finest:
            self.upsample = nn.Conv2d(level.width, level.width * (4 if magvit2 else 1), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.finest:
            return x
        if self.magvit2:
            return depth_to_space(self.upsample(x))
        return self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def depth_to_space(x: Tensor) -> Tensor:
    """[N, 4C, H, W] -> [N, C, 2H, 2W]: channel (dy*2 + dx)*C + c is the pixel (dy, dx) of four."""
    n, c, h, w = x.shape
    return x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


class Encoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        levels, magvit2 = config.levels_down, config.network == MAGVIT2
        widths = [config.ch, *(level.width for level in levels)]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            EncoderLevel(widths[i], level, magvit2, i == len(levels) - 1) for i, level in enumerate(levels)
        )
        self.mid = blocks([widths[-1]] * (levels[0].blocks + 1), magvit2)
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.embed_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for part in (*self.down, *self.mid):
            x = part(x)
        return self.conv_out(silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        levels, magvit2 = config.levels_up, config.network == MAGVIT2
        widths = [*(level.width for level in levels), levels[-1].width]  # of what a level gives; one more is its input
        self.conv_in = nn.Conv2d(config.embed_dim, widths[-1], 3, padding=1)
        self.mid = blocks([widths[-1]] * (levels[0].blocks + 1), magvit2)
        self.up = nn.ModuleList(DecoderLevel(widths[i + 1], level, magvit2, i == 0) for i, level in enumerate(levels))
        self.adaptive = nn.ModuleList(
            AdaptiveNorm(widths[i + 1], config.embed_dim) for i in range(len(levels) if magvit2 else 0)
        )
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.conv_in(vectors)
        for block in self.mid:
            x = block(x)
        for i in reversed(range(len(self.up))):
            x = self.up[i](self.adaptive[i](x, vectors) if self.adaptive else x)
        return self.conv_out(silu(self.norm_out(x)))


class ConvolutionalVQ(TokenizerNetwork):
    """Encoder, quantiser and decoder of one `config`, without convolutions around the quantiser; as `VQGAN`."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig, *, encoder: bool = True, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        if encoder:
            self.encoder = Encoder(config)
        self.quantize = quantiser(config)
        if decoder:
            self.decoder = Decoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels).float().permute(0, 2, 3, 1)

    def reconstruct(self, quantized: Tensor) -> Tensor:
        return self.decoder(quantized.permute(0, 3, 1, 2).to(memory_format=torch.contiguous_format))
