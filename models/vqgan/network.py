"""The VQGAN of taming-transformers and vqgan-jax, for inference: images to codes and back.

Architecture: Esser, Rombach, Ommer, "Taming Transformers for High-Resolution Image Synthesis", 2021.
Parameter names are those of taming's `state_dict`; `models/vqgan/checkpoint.py` renames the others to them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ConfigError, no_numbers
from models.vqgan.config import GROUPS, VQGANConfig

NORM_EPS = 1e-6
SEARCH_BLOCK = 128
SEARCH_CELLS = {"cpu": 1 << 22, "cuda": 1 << 27}  # distances held at once while searching codes


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
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                channels_in=widths[i - 1] if i else config.ch,
                channels_out=width,
                blocks=config.num_res_blocks,
                attention=config.resolution // 2**i in config.attn_resolutions,
                resample=Downsample(width) if i < len(widths) - 1 else None,
            )
            for i, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(
                channels_in=widths[min(i + 1, len(widths) - 1)],
                channels_out=width,
                blocks=config.num_res_blocks + 1,
                attention=config.resolution // 2**i in config.attn_resolutions,
                resample=Upsample(width) if i else None,
            )
            for i, width in enumerate(widths)
        )
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))


class NearestQuantizer(nn.Module):
    """Codes by the smallest squared distance; ties go to the lower id."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.n_embed, config.embed_dim)

    @property
    def codebook(self) -> Tensor:
        return self.embedding.weight

    def forward(self, latents: Tensor) -> Tensor:
        """float32 [M, D] -> int64 [M]. A slice of the distances at a time, so memory does not grow with M x K."""
        codebook = self.codebook.float()
        half_norms = codebook.square().sum(1) / 2
        parts = latents.split(search_rows(latents, codebook.shape[0]))
        return torch.cat([first_smallest(torch.addmm(half_norms, part, codebook.T, alpha=-1)) for part in parts])


def search_rows(latents: Tensor, codes: int) -> int:
    """How many latents to search for at once."""
    return max(1, SEARCH_CELLS.get(latents.device.type, SEARCH_CELLS["cpu"]) // codes)


def first_smallest(values: Tensor) -> Tensor:
    """`values.argmin(1)` of [M, K], by blocks: torch's minimum is vectorised and its argmin is not."""
    rows, columns = values.shape
    if columns % SEARCH_BLOCK or values.device.type != "cpu":
        return values.argmin(1)
    blocks = values.view(rows, -1, SEARCH_BLOCK)
    block = blocks.amin(2).argmin(1)
    within = blocks[torch.arange(rows), block].argmin(1)
    return block * SEARCH_BLOCK + within


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of float32 [..., channels], in float32."""
    return F.linear(x, conv.weight.float().flatten(1), None if conv.bias is None else conv.bias.float())


class GumbelQuantizer(nn.Module):
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


class VQGAN(nn.Module):
    """Encoder, quantiser and decoder.

    `encode` and `decode` are the inference path; `latents`, `quantize`, `embed` and `reconstruct` are its
    differentiable pieces, for training and comparison. With `encoder=False` there is only `decode` (min-dalle).
    """

    def __init__(self, config: VQGANConfig, *, encoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.has_encoder = encoder
        if encoder:
            self.encoder = Encoder(config)
            self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.quantize = NearestQuantizer(config) if config.quantizer == "nearest" else GumbelQuantizer(config)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.decoder = Decoder(config)

    @property
    def device(self) -> torch.device:
        return self.post_quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the convolutions; the quantiser and its convolution stay float32."""
        return self.decoder.conv_in.weight.dtype

    def for_inference(self, device: torch.device, dtype: torch.dtype) -> VQGAN:
        """Move to `device`, channels-last, in `dtype` but for the quantiser and its convolution; no gradients."""
        self.eval().requires_grad_(False)
        self.to(device=device)
        parts = [self.decoder, self.post_quant_conv] + ([self.encoder] if self.has_encoder else [])
        for part in parts:
            part.to(dtype=dtype)
            for weight in part.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels in `config.pixel_range` [N, 3, H, W] -> float32 [N, h, w, embed_dim], before quantisation."""
        return pointwise(self.encoder(pixels).float().permute(0, 2, 3, 1), self.quant_conv)

    def codes(self, latents: Tensor) -> Tensor:
        """float32 [N, h, w, embed_dim] -> int64 [N, h*w], raster order."""
        return self.quantize(latents.reshape(-1, latents.shape[-1])).reshape(latents.shape[0], -1)

    def embed(self, codes: Tensor) -> Tensor:
        """int64 [N, h*w] -> code vectors [N, h, w, embed_dim]."""
        side = round(codes.shape[1] ** 0.5)
        return F.embedding(codes, self.quantize.codebook).reshape(codes.shape[0], side, side, -1)

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Code vectors [N, h, w, embed_dim] -> pixels in `config.pixel_range`, not clipped, [N, 3, H, W]."""
        return self.decoder(self.post_quant_conv(quantized.permute(0, 3, 1, 2)))

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> int64 codes [N, h*w], raster order; h = H / factor.

        Raises `ConfigError` if the weights hold no encoder, `CheckpointError` if they give NaN or infinity.
        """
        return self.codes(self.image_latents(images))

    @torch.inference_mode()
    def image_latents(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> float32 [N, h, w, embed_dim]: `encode` up to the quantiser, and its errors."""
        if not self.has_encoder:
            raise ConfigError("this checkpoint has a decoder only: it can decode codes, not encode images")
        low, high = self.config.pixel_range
        pixels = images.to(self.device).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
        return self._numbers(self.latents(pixels.to(self.dtype)), "codes")

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """int64 codes [N, h*w], each in [0, n_embed) -> uint8 [N, H, W, 3], rounded to the nearest level.

        Raises `CheckpointError` if the weights give NaN or infinity, as some do in float16.
        """
        low, high = self.config.pixel_range
        pixels = self.reconstruct(self.embed(codes.to(self.device)).to(self.dtype)).float()
        self._numbers(pixels, "images")
        levels = ((pixels - low) * (255.0 / (high - low))).clamp(0.0, 255.0).round()
        return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _numbers(self, values: Tensor, what: str) -> Tensor:
        """Returns `values`; raises if any is NaN or infinite, since it would yield valid-looking codes and pixels."""
        if not bool(values.sum().isfinite()):
            raise no_numbers(f"the VQGAN makes {what}", str(self.dtype).removeprefix("torch."))
        return values
