"""What the networks of all families share: images to codes and back around an encoder, a quantiser and a decoder."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ConfigError, no_numbers
from models.quantiser import Quantiser

Network = TypeVar("Network", bound="TokenizerNetwork")


class TokenizerNetwork(nn.Module):
    """A network has `config`, `quantize`, `encoder` unless it only decodes, `decoder` unless it only encodes.

    `config` has `pixel_range`, what the network reads and writes for 0 to 255, and `spec`, as `TorchCodec` asks for it.
    A family gives `latents` and `reconstruct`; `encode` and `decode` are the inference path around them.
    """

    PRECISE = ("quantize", "quant_conv")  # parts that stay float32 in every dtype

    config: Any
    quantize: Quantiser

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels in `config.pixel_range` [N, 3, H, W] -> float32 [N, h, w, D], before quantisation."""
        raise NotImplementedError

    def reconstruct(self, quantized: Tensor) -> Tensor:
        """Code vectors [N, h, w, D] -> pixels in `config.pixel_range`, not clipped, [N, 3, H, W]."""
        raise NotImplementedError

    @property
    def has_encoder(self) -> bool:
        return hasattr(self, "encoder")

    @property
    def has_decoder(self) -> bool:
        return hasattr(self, "decoder")

    @property
    def _convolution(self) -> nn.Parameter:
        """A weight of the network proper."""
        part: nn.Module = self.decoder if self.has_decoder else self.encoder  # type: ignore[assignment]
        return next(part.parameters())

    @property
    def device(self) -> torch.device:
        return self._convolution.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the convolutions; the quantiser and its convolution stay float32."""
        return self._convolution.dtype

    def for_inference(self: Network, device: torch.device, dtype: torch.dtype) -> Network:
        """Move to `device`, channels-last, in `dtype` but for the quantiser and its convolution; no gradients."""
        self.eval().requires_grad_(False)
        self.to(device=device)
        for name, part in self.named_children():
            if name in self.PRECISE:
                continue
            part.to(dtype=dtype)
            for weight in part.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def codes(self, latents: Tensor) -> Tensor:
        """float32 [N, h, w, D] -> int64 [N, h*w], raster order."""
        found: Tensor = self.quantize(latents.reshape(-1, latents.shape[-1]))
        return found.reshape(latents.shape[0], -1)

    def embed(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """int64 [N, h*w], by default h = w -> code vectors [N, h, w, D]."""
        side = round(codes.shape[1] ** 0.5)
        return self.quantize.lookup(codes).reshape(codes.shape[0], *(grid or (side, side)), -1)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> int64 codes [N, h*w], raster order; h = H / factor.

        Raises `ConfigError` if the weights hold no encoder, `CheckpointError` if they give NaN or infinity.
        """
        return self.codes(self.image_latents(images))

    @torch.inference_mode()
    def image_latents(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> float32 [N, h, w, D]: `encode` up to the quantiser, and its errors."""
        if not self.has_encoder:
            raise ConfigError("this checkpoint has a decoder only: it can decode codes, not encode images")
        low, high = self.config.pixel_range
        pixels = images.to(self.device).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
        return self._numbers(self.latents(pixels.to(self.dtype)), "codes")

    @torch.inference_mode()
    def decode(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """int64 codes [N, h*w], each in [0, n_embed) -> uint8 [N, H, W, 3], rounded to the nearest level.

        `grid` is h and w, by default those of a square.

        Raises `ConfigError` if the weights hold no decoder, `CheckpointError` if they give NaN or infinity, as some do
        in float16.
        """
        if not self.has_decoder:
            raise ConfigError("this checkpoint has an encoder only: it can encode images, not decode codes")
        low, high = self.config.pixel_range
        pixels = self.reconstruct(self.embed(codes.to(self.device), grid).to(self.dtype)).float()
        self._numbers(pixels, "images")
        levels = ((pixels - low) * (255.0 / (high - low))).clamp(0.0, 255.0).round()
        return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _numbers(self, values: Tensor, what: str) -> Tensor:
        """Returns `values`; raises if any is NaN or infinite, since it would yield valid-looking codes and pixels."""
        if not bool(values.sum().isfinite()):
            raise no_numbers(f"the VQGAN makes {what}", str(self.dtype).removeprefix("torch."))
        return values


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of float32 [..., channels], in float32."""
    return F.linear(x, conv.weight.float().flatten(1), None if conv.bias is None else conv.bias.float())
