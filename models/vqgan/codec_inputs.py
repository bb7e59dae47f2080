"""What a codec of any backend may be called with."""

from __future__ import annotations

import numpy as np

from models.vqgan.config import VQGANConfig


def check_images(images: np.ndarray, config: VQGANConfig, batch_size: int) -> None:
    """Raise `ValueError` unless `images` is uint8 [n, H, W, 3] that fits the model and the batch."""
    factor = config.factor
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % factor or images.shape[2] % factor:
        raise ValueError(f"images must be [n, H, W, 3] with sides in multiples of {factor}, not {list(images.shape)}")
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, not {images.dtype}")
    if len(images) > batch_size:
        raise ValueError(f"{len(images)} images are more than the batch size of {batch_size}")


def check_codes(codes: np.ndarray, config: VQGANConfig, batch_size: int) -> None:
    """Raise `ValueError` unless `codes` are integers [n, codes_per_image] within the codebook and the batch."""
    if codes.ndim != 2 or codes.shape[1] != config.codes_per_image or codes.dtype.kind not in "iu":
        wanted = f"integers [n, {config.codes_per_image}]"
        raise ValueError(f"codes must be {wanted}, not {codes.dtype} {list(codes.shape)}")
    if codes.size and not 0 <= codes.min() <= codes.max() < config.n_embed:
        raise ValueError(f"codes must be in [0, {config.n_embed}), not in [{codes.min()}, {codes.max()}]")
    if len(codes) > batch_size:
        raise ValueError(f"{len(codes)} rows of codes are more than the batch size of {batch_size}")
