"""The network of Emu3's tokenizer for still images: transformers' own class, between our quantiser and pixels.

Wang et al., "Emu3: Next-Token Prediction is All You Need", 2024. It was made for videos: an image is repeated to as
many frames as one code stands for, and of the frames that are decoded the first is taken. Their parts are called one by
one, so that those that treat each frame by itself run for one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ConfigError
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.config import VQGANConfig
from models.vqgan.network import quantiser, silu


def their_class() -> Any:
    """transformers' class. Raises `ConfigError` if this transformers has none."""
    try:
        from transformers import Emu3VQVAE
    except ImportError as error:
        raise ConfigError(f"the tokenizer of Emu3 is a class of transformers: {error}; upgrade it") from error
    return Emu3VQVAE


def their_config(config: VQGANConfig) -> Any:
    """`Emu3VQVAEConfig`; attention has one head in the width of the last level."""
    from transformers import Emu3VQVAEConfig

    levels = config.levels_down
    return Emu3VQVAEConfig(
        codebook_size=config.n_embed,
        embed_dim=config.embed_dim,
        latent_channels=config.z_channels,
        double_latent=False,
        in_channels=config.in_channels,
        out_channels=config.out_ch,
        temporal_downsample_factor=config.frames,
        base_channels=config.ch,
        channel_multiplier=[level.width // config.ch for level in levels],
        num_res_blocks=levels[0].blocks,
        attn_resolutions=[number for number, level in enumerate(levels) if level.attention],
        hidden_size=levels[-1].width,
        num_attention_heads=1,
        attention_dropout=0.0,
        attn_implementation="sdpa",
    )


class Emu3VQ(TokenizerNetwork):
    """Encoder, quantiser and decoder of one `config`; as `VQGAN`."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig, theirs: Any, *, encoder: bool = True, decoder: bool = True) -> None:
        """`theirs` is transformers' class: nothing is imported here."""
        super().__init__()
        self.config = config
        network = theirs(their_config(config))
        if encoder:
            self.encoder, self.quant_conv = network.encoder, network.quant_conv
        self.quantize = quantiser(config)
        if decoder:
            self.post_quant_conv, self.decoder = network.post_quant_conv, network.decoder
        for part in self.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.num_batches_tracked, part.track_running_stats = None, False  # in training only
        self.eval()  # its batch norms differ in training

    def latents(self, pixels: Tensor) -> Tensor:
        part = self.encoder
        hidden = part.middle_block(part.down_block(part.conv_in(pixels)))
        hidden = part.conv_out(silu(part.norm_out(hidden)))
        frames = hidden.unsqueeze(2).repeat(1, 1, self.config.frames, 1, 1)  # [N, D, frames, h, w]
        for conv in part.time_conv:
            frames = silu(conv(frames))
        for block in part.time_res_stack:
            frames = block(frames)
        return self.quant_conv(frames.float())[:, :, 0].permute(0, 2, 3, 1)

    def reconstruct(self, quantized: Tensor) -> Tensor:
        part = self.decoder
        vectors = quantized.permute(0, 3, 1, 2).unsqueeze(2).contiguous()  # [N, D, 1, h, w]
        both = torch.cat((self.post_quant_conv(vectors), vectors))
        for block in part.time_res_stack:
            both = block(both)
        for conv in part.time_conv:
            both = silu(conv(both))
        hidden, read = both[:, :, 0].chunk(2)  # of the frames the first
        hidden = part.up_block(part.middle_block(part.conv_in(hidden), read), read)
        return part.conv_out(silu(part.norm_out(hidden, read)))
