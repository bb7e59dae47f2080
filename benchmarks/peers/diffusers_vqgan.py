"""The peer from diffusers: its VQModel with our geometry and weights, in its default float32."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from torch import Tensor

from benchmarks.peers.codec_peer import DECODING, ENCODING, CodecPeer, count_weights
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.checkpoint import open_checkpoint
from models.vqgan.config import VQGANConfig

RENAMED = (  # from our names to theirs
    (r"\.down\.(\d+)\.", r".down_blocks.\1."),
    (r"\.up\.(\d+)\.", r".up_blocks.\1."),
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.attn\.(\d+)\.", r".attentions.\1."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
)


def load_encoder(folder: Path, device: torch.device, items: np.ndarray) -> CodecPeer:
    """uint8 [N, H, W, 3] -> int64 codes [N, T]: what a user of diffusers writes."""
    ours = open_checkpoint(folder).network()
    peer, config = make_peer(ours, device), ours.config

    def encode(images: np.ndarray) -> np.ndarray:
        low, high = config.pixel_range
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
            indices = peer.quantize(peer.encode(pixels).latents)[2][2]
        return indices.reshape(len(images), -1).cpu().numpy()

    return CodecPeer(items, encode, encode, count_weights(peer, ENCODING))


def load_decoder(folder: Path, device: torch.device, items: np.ndarray) -> CodecPeer:
    """int64 codes [N, T] -> uint8 [N, H, W, 3]; float32 pixels from 0 to 1 are compared."""
    ours = open_checkpoint(folder).network()
    peer, config = make_peer(ours, device), ours.config

    def pixels(codes: np.ndarray) -> Tensor:
        low, high = config.pixel_range
        grid = config.spec(name="").grid
        shape = (len(codes), grid, grid, config.embed_dim)
        with torch.inference_mode():
            vectors = peer.quantize.get_codebook_entry(torch.from_numpy(codes).to(device).flatten(), shape)
            decoded = peer.decode(vectors, force_not_quantize=True).sample
            return ((decoded - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1)

    def decode(codes: np.ndarray) -> np.ndarray:
        return (pixels(codes) * 255).round().to(torch.uint8).cpu().numpy()

    return CodecPeer(items, decode, lambda codes: pixels(codes).cpu().numpy(), count_weights(peer, DECODING))


def make_peer(ours: TokenizerNetwork, device: torch.device) -> VQModel:
    """diffusers' model with the weights of `ours` (float32).

    Raises `RuntimeError` if a weight of either has no partner: the two networks would not be the same.
    """
    config = ours.config
    levels = config.levels_down
    attention = ["Attn" if level.attention else "" for level in levels]
    peer = VQModel(
        down_block_types=tuple(f"{prefix}DownEncoderBlock2D" for prefix in attention),
        up_block_types=tuple(f"{prefix}UpDecoderBlock2D" for prefix in reversed(attention)),
        block_out_channels=tuple(level.width for level in levels),
        layers_per_block=levels[0].blocks,
        latent_channels=config.z_channels,
        num_vq_embeddings=config.n_embed,
        vq_embed_dim=config.embed_dim,
        sample_size=config.resolution,
        mid_block_add_attention=config.middle_attention,
    )
    weights = {_rename(name, config): value for name, value in ours.state_dict().items()}
    shapes = {name: value.shape for name, value in peer.state_dict().items()}
    if weights.keys() != shapes.keys():
        raise RuntimeError(f"the peer is another network: {sorted(weights.keys() ^ shapes.keys())}")
    peer.load_state_dict({name: value.reshape(shapes[name]) for name, value in weights.items()})
    return peer.to(device).eval().requires_grad_(False)


def _rename(name: str, config: VQGANConfig) -> str:
    for ours, theirs in RENAMED:
        name = re.sub(ours, theirs, name)
    last = len(config.ch_mult) - 1  # diffusers counts the decoder's levels from the smallest
    return re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up_blocks.{last - int(found[1])}.", name)
