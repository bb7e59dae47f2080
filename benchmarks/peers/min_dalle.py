"""The peers from min-dalle, float32 as it ships: its detokenizer with our weights, its generator with random ones.

Its classes are built directly, since its `MinDalle` would download weights. They are imported inside functions, since
importing min-dalle turns gradients off for a process and sets its number of threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.codec_peer import DECODING, CodecPeer, count_weights
from models.bart.config import DalleBartConfig
from models.vqgan.checkpoint import open_checkpoint


def load_detokenizer(folder: Path, device: torch.device, items: np.ndarray) -> CodecPeer:
    """int64 codes [N, 256] -> uint8 [S x 256, S x 256, 3], N = S x S images as one. A single image is compared, as
    float32 pixels from 0 to 1.

    Its geometry is fixed. Raises `RuntimeError` if a weight of either network has no partner.
    """
    from min_dalle.models import VQGanDetokenizer

    weights = {
        name.removeprefix("quantize."): value
        for name, value in open_checkpoint(folder).network().state_dict().items()
        if name.startswith(DECODING)
    }
    network = VQGanDetokenizer()
    network.load_state_dict(weights)
    network.to(device).eval()

    def levels(codes: np.ndarray) -> Tensor:
        return network.forward(False, torch.from_numpy(codes).to(device))

    def decode(codes: np.ndarray) -> np.ndarray:
        return levels(codes).to(torch.uint8).cpu().numpy()

    def compared(codes: np.ndarray) -> np.ndarray:
        return levels(codes)[None].cpu().numpy() / 255

    return CodecPeer(items, decode, compared, count_weights(network, ("",)))


@dataclass(frozen=True)
class MinDalleGenerator:
    """min-dalle's encoder and decoder with the geometry of `config`."""

    encoder: Any
    decoder: Any
    config: DalleBartConfig
    device: torch.device

    @property
    def weights(self) -> int:
        return sum(count_weights(part, ("",)) for part in (self.encoder, self.decoder))

    def seconds(self, images: int, steps: int, top_k: int) -> float:
        """Of guided images of one prompt, from the times of its caption and of `steps` of the steps.

        These are spread over the image, after two to warm up.
        """
        config, device = self.config, self.device
        text = torch.ones(2, config.max_text_length, dtype=torch.long, device=device)
        text[0, :2] = torch.tensor([0, 2])
        text[1, :12] = torch.tensor([0, *range(3, 13), 2])
        self.encoder(text)
        start = self._now()
        states = self.encoder(text)
        caption = self._now() - start
        halves = [0] * images + [1] * images
        cache = torch.zeros(config.decoder_layers, images * 4, config.image_length, config.d_model, device=device)
        settings = torch.tensor([1.0, top_k, 10.0], device=device)
        codes = torch.zeros(images, 1, dtype=torch.long, device=device)
        positions = torch.linspace(0, config.image_length - 1, steps + 2).long().tolist()
        for number, position in enumerate(positions):
            if number == 2:
                start = self._now()
            drawn, cache = self.decoder.sample_tokens(
                settings=settings,
                attention_mask=text[halves].not_equal(1)[:, None, None, :],
                encoder_state=states[halves],
                attention_state=cache,
                prev_tokens=codes,
                token_index=torch.tensor([position], device=device),
            )
            codes = drawn[:, None]
        return caption + (self._now() - start) / steps * config.image_length

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def load_generator(config: DalleBartConfig, device: torch.device) -> MinDalleGenerator:
    """The generator with random weights."""
    from min_dalle.models import DalleBartDecoder, DalleBartEncoder

    torch.set_grad_enabled(False)  # as its own module does
    encoder = DalleBartEncoder(
        layer_count=config.encoder_layers,
        embed_count=config.d_model,
        attention_head_count=config.encoder_attention_heads,
        text_vocab_count=config.encoder_vocab_size,
        text_token_count=config.max_text_length,
        glu_embed_count=config.encoder_ffn_dim,
        device=str(device),
    )
    decoder = DalleBartDecoder(
        image_vocab_count=config.image_vocab_size,
        embed_count=config.d_model,
        attention_head_count=config.decoder_attention_heads,
        glu_embed_count=config.decoder_ffn_dim,
        layer_count=config.decoder_layers,
        device=str(device),
    )
    return MinDalleGenerator(encoder.eval().to(device), decoder.eval().to(device), config, device)
