"""The peer: the VQModel of Hugging Face diffusers, with our geometry and our weights, in its default float32."""

from __future__ import annotations

import re

import torch
from diffusers import VQModel
from torch import Tensor

from models.vqgan import VQGAN, VQGANConfig

RENAMED = (  # from our names to theirs
    (r"\.down\.(\d+)\.block\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
    (r"\.down\.(\d+)\.attn\.(\d+)\.", r".down_blocks.\1.attentions.\2."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    (r"^encoder\.norm_out\.", "encoder.conv_norm_out."),
)
NOT_COMPARED = ("decoder.", "post_quant_conv.")


def make_peer(ours: VQGAN, device: torch.device) -> VQModel:
    """diffusers' model with the encoder, codebook and convolution before it taken from `ours` (float32).

    Raises `RuntimeError` where a weight of either is left over: the two networks would not be the same.
    """
    config = ours.config
    peer = VQModel(
        down_block_types=tuple(_block(config, level) for level in range(len(config.ch_mult))),
        up_block_types=("UpDecoderBlock2D",) * len(config.ch_mult),
        block_out_channels=tuple(config.ch * mult for mult in config.ch_mult),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
        num_vq_embeddings=config.n_embed,
        vq_embed_dim=config.embed_dim,
        sample_size=config.resolution,
        mid_block_add_attention=True,
    )
    weights = {_rename(name): value for name, value in ours.state_dict().items() if not name.startswith(NOT_COMPARED)}
    shapes = {name: value.shape for name, value in peer.state_dict().items() if not name.startswith(NOT_COMPARED)}
    if weights.keys() != shapes.keys():
        raise RuntimeError(f"the peer is another network: {sorted(weights.keys() ^ shapes.keys())}")
    peer.load_state_dict({name: value.reshape(shapes[name]) for name, value in weights.items()}, strict=False)
    return peer.to(device).eval().requires_grad_(False)


def encode(peer: VQModel, images: Tensor, config: VQGANConfig) -> Tensor:
    """uint8 [N, H, W, 3] -> int64 codes [N, T]: what a user of diffusers writes."""
    low, high = config.pixel_range
    with torch.inference_mode():
        pixels = images.to(peer.device).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
        indices = peer.quantize(peer.encode(pixels).latents)[2][2]
    return indices.reshape(len(images), -1).cpu()


def _block(config: VQGANConfig, level: int) -> str:
    side = config.resolution // 2**level
    return "AttnDownEncoderBlock2D" if side in config.attn_resolutions else "DownEncoderBlock2D"


def _rename(name: str) -> str:
    for ours, theirs in RENAMED:
        name = re.sub(ours, theirs, name)
    return name
