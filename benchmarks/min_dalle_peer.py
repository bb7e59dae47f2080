"""The peer of generation: min-dalle's own encoder and decoder with random weights, in a process of its own.

Its classes are built directly: its `MinDalle` would download weights. A process of its own, because importing min-dalle
sets the number of threads, and so that nothing of ours reaches it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from models.bart.network import DalleBartConfig

Clock = Callable[[], float]  # seconds
_loaded: tuple[Any, Any, DalleBartConfig, torch.device, Clock] | None = None  # of the peer's process


@dataclass(frozen=True)
class PeerTimes:
    """Seconds of its two parts; a picture takes one `caption` and as many steps as it has codes."""

    caption: float
    step: float
    weights: int


class MinDallePeer:
    """min-dalle as it ships, float32, with the geometry of `config`; used as a context."""

    def __init__(self, config: DalleBartConfig, device: torch.device, clock: Clock) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, _load, (config, device, torch.get_num_threads(), clock))

    def __enter__(self) -> MinDallePeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def times(self, pictures: int, steps: int, top_k: int) -> PeerTimes:
        """Pictures of one prompt, guided, over `steps` steps spread over the picture, after two to warm up."""
        return self._process.submit(_times, pictures, steps, top_k).result()


def _load(config: DalleBartConfig, device: torch.device, threads: int, clock: Clock) -> None:
    from min_dalle.models import DalleBartDecoder, DalleBartEncoder

    global _loaded
    torch.set_num_threads(threads)
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
    _loaded = (encoder.eval().to(device), decoder.eval().to(device), config, device, clock)


def _times(pictures: int, steps: int, top_k: int) -> PeerTimes:
    assert _loaded is not None
    encoder, decoder, config, device, clock = _loaded
    text = torch.ones(2, config.max_text_length, dtype=torch.long, device=device)
    text[0, :2] = torch.tensor([0, 2])
    text[1, :12] = torch.tensor([0, *range(3, 13), 2])
    encoder(text)
    start = _now(device, clock)
    states = encoder(text)
    caption = _now(device, clock) - start
    halves = [0] * pictures + [1] * pictures
    cache = torch.zeros(config.decoder_layers, pictures * 4, config.image_length, config.d_model, device=device)
    settings = torch.tensor([1.0, top_k, 10.0], device=device)
    codes = torch.zeros(pictures, 1, dtype=torch.long, device=device)
    places = torch.linspace(0, config.image_length - 1, steps + 2).long().tolist()
    for number, place in enumerate(places):
        if number == 2:
            start = _now(device, clock)
        drawn, cache = decoder.sample_tokens(
            settings=settings,
            attention_mask=text[halves].not_equal(1)[:, None, None, :],
            encoder_state=states[halves],
            attention_state=cache,
            prev_tokens=codes,
            token_index=torch.tensor([place], device=device),
        )
        codes = drawn[:, None]
    step = (_now(device, clock) - start) / steps
    weights = sum(p.numel() for part in (encoder, decoder) for p in part.parameters())
    return PeerTimes(caption, step, weights)


def _now(device: torch.device, clock: Clock) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
