"""The peer from transformers: its ChameleonVQVAE with our geometry and weights, in its default float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

from benchmarks.peers.codec_peer import ENCODING, CodecPeer, count_weights
from models.vqgan.checkpoint import open_checkpoint


def load_encoder(folder: Path, device: torch.device, items: np.ndarray) -> CodecPeer:
    """uint8 [N, H, W, 3] -> int64 codes [N, T]: what a user of transformers writes.

    Raises `RuntimeError` if a weight of either encoder has no partner: the two networks would not be the same.
    """
    ours = open_checkpoint(folder).network()
    config = ours.config
    peer = ChameleonVQVAE(
        ChameleonVQVAEConfig(
            embed_dim=config.embed_dim,
            num_embeddings=config.n_embed,
            latent_channels=config.z_channels,
            resolution=config.resolution,
            base_channels=config.ch,
            channel_multiplier=config.ch_mult,
            num_res_blocks=config.num_res_blocks,
            attn_resolutions=list(config.attn_resolutions),
        )
    )
    weights = {name: value for name, value in ours.state_dict().items() if name.startswith(ENCODING)}
    expected = {name for name in peer.state_dict() if name.startswith(ENCODING)}
    if weights.keys() != expected:
        raise RuntimeError(f"the peer is another network: {sorted(weights.keys() ^ expected)}")
    peer.load_state_dict(weights, strict=False)
    peer.to(device).eval().requires_grad_(False)
    low, high = config.pixel_range

    def encode(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() * ((high - low) / 255.0) + low
            codes = peer.encode(pixels).image_tokens
        return codes.reshape(len(images), -1).cpu().numpy()

    return CodecPeer(items, encode, encode, count_weights(peer, ENCODING))
