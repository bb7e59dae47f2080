"""DALL·E BART's decoder one code at a time for a picture or two on a CPU: all layers of a step in one compiled call.

Takes the place of `models/cached_decoder.py`, with the same arithmetic, where a step is a matter of reading the weights
once: `models/token_generator.py` chooses.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dalle_bart import DalleBartConfig, Decoder, DecoderLayer, Norm

MOST_ROWS = 4  # above, the matrix units of `models/dense.py` are faster
LEAST_BYTES = 1 << 26  # of weights: what stays in a processor's caches gains little, and compiling takes seconds
TURN = 32  # weights that a kernel reads at a time: inner sizes are multiples of it
ONE_CALL = threading.Lock()  # where there is no OpenMP, numba ends a process in which two threads call it at once
BUILT = {  # the options that are compiled: those of the published models
    "activation_function": "gelu",
    "ln_positions": "normformer",
    "ln_type": "layernorm",
    "use_bias": False,
    "use_glu": True,
}


def worth_it(config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this decoder can run, and is the faster one."""
    width, hidden = config.d_model, config.decoder_ffn_dim
    weights = config.decoder_layers * (6 * width * width + 3 * width * hidden) * dtype.itemsize
    return weights >= LEAST_BYTES and obstacle(config, rows, device, dtype) is None


def obstacle(config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps this decoder from running, in words; None where nothing does."""
    if device.type != "cpu":
        return f"the device is {device}, not a CPU"
    if rows > MOST_ROWS:
        return f"{rows} rows at once, pictures and guidance halves, are more than {MOST_ROWS}"
    if dtype not in (torch.float32, torch.bfloat16, torch.int8):
        return f"weights are held in {dtype}"
    other = [f"{name} {getattr(config, name)}" for name, value in BUILT.items() if getattr(config, name) != value]
    if other or config.d_model % TURN:
        return "the network has " + (" and ".join(other) or f"a width that is no multiple of {TURN}, {config.d_model}")
    try:
        importlib.import_module("numba")
    except (ImportError, OSError) as error:  # not there, or not made for this numpy or this system
        return f"numba cannot be used ({error}): pip install numba"
    return None


class FewRowsDecoder:
    """The decoder for a fixed number of rows; the methods of `CachedDecoder`.

    Weights are held in `dtype`: float32, bfloat16, or int8 with a scale for each output; with int8 those of embeddings,
    `lm_head` and the products with captions in bfloat16. Caches and all arithmetic are float32.
    """

    def __init__(self, decoder: Decoder, *, rows: int, codebook_size: int, dtype: torch.dtype) -> None:
        from models import few_rows_kernels as kernels

        self._kernels = kernels
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        size, heads = decoder.embed_tokens.embedding_dim, layers[0].self_attn.heads
        length, hidden = decoder.embed_positions.num_embeddings, layers[0].glu.fc2.in_features
        padded = -(-hidden // TURN) * TURN
        even = rows + rows % 2
        rest = torch.bfloat16 if dtype == torch.int8 else dtype
        self.rows = rows
        self.scale = decoder.embedding_scale
        self.codes = decoder.embed_tokens.weight.detach().to(rest)
        self.positions = decoder.embed_positions.weight.detach().float()
        self.embedding_norm = decoder.layernorm_embedding
        self.text_keys_values = [
            torch.cat((each.encoder_attn.k_proj.weight, each.encoder_attn.v_proj.weight)).detach().to(rest)
            for each in layers
        ]

        def matrices(of: Callable[[DecoderLayer], Tensor], inputs: int = 0) -> Any:
            given = (of(each).detach().float() for each in layers)
            whole = (F.pad(weight, (0, max(0, inputs - weight.shape[1]))) for weight in given)
            held = [_quantised(weight) if dtype == torch.int8 else _unscaled(weight.to(dtype)) for weight in whole]
            weights, scales = zip(*held, strict=True)
            return kernels.Matrices(_readable(torch.stack(weights)), torch.stack(scales).numpy())

        def norms(of: Callable[[DecoderLayer], Norm]) -> np.ndarray:
            return np.stack([_scale_and_bias(of(each)) for each in layers])

        self._layers = kernels.Layers(
            own_norm=norms(lambda layer: layer.pre_self_attn_layer_norm),
            own_in=matrices(
                lambda layer: torch.cat([layer.self_attn.get_parameter(f"{n}_proj.weight") for n in "qkv"])
            ),
            own_out=matrices(lambda layer: layer.self_attn.out_proj.weight),
            own_branch_norm=norms(lambda layer: cast("Norm", layer.self_attn_layer_norm)),
            text_norm=norms(lambda layer: layer.pre_encoder_attn_layer_norm),
            text_in=matrices(lambda layer: layer.encoder_attn.q_proj.weight),
            text_out=matrices(lambda layer: layer.encoder_attn.out_proj.weight),
            text_branch_norm=norms(lambda layer: cast("Norm", layer.encoder_attn_layer_norm)),
            glu_norm=norms(lambda layer: layer.glu.ln0),
            gate=matrices(lambda layer: layer.glu.fc0.weight),
            gated=matrices(lambda layer: cast("nn.Linear", layer.glu.fc1).weight),
            hidden_norm=norms(lambda layer: cast("Norm", layer.glu.ln1)),
            glu_out=matrices(lambda layer: layer.glu.fc2.weight, padded),
        )
        self._final_norm = _scale_and_bias(decoder.final_ln)
        self._lm_head = _readable(decoder.lm_head.weight.detach()[:codebook_size].to(rest))
        self._unscaled = np.ones(codebook_size, np.float32)
        cache = (len(layers), even, heads, length, size // heads)
        self._own = kernels.Attended(_zeros(*cache), _zeros(*cache), np.arange(even))
        self._scratch = kernels.Scratch(
            normed=_zeros(even, size),
            projected=_zeros(even, 3 * size),
            found=_zeros(even, size),
            hidden=_zeros(even, padded),
            scores=_zeros(even, heads, length),
        )
        self._x = _zeros(even, size)
        self._logits = _zeros(even, codebook_size)
        blank = torch.zeros(1, 1, size, dtype=rest), torch.ones(1, 1)
        self.begin([blank])
        self.step(torch.zeros(rows, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 1, exact=True)  # compiles

    def begin(self, captions: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take encoder states [G, L, D] and masks [G, L] (1 = real): each pair is for an equal share of the rows."""
        heads = self._own.keys.shape[2]
        share = self.rows // len(captions)
        most = max(states.shape[1] for states, _ in captions)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        pieces: list[int] = []
        group: list[int] = []
        for states, mask in captions:
            first = len(pieces)
            for caption, real in zip(states, mask.bool(), strict=True):
                seen = F.pad(caption[real].to(self.codes.dtype), (0, 0, 0, most - int(real.sum())))
                both = torch.stack([F.linear(seen, weight).float() for weight in self.text_keys_values])
                split = both.view(len(both), most, 2, heads, -1).permute(2, 0, 3, 1, 4)
                keys.append(split[0])
                values.append(split[1])
                pieces.append(int(real.sum()))
            group += [first + row // (share // len(states)) for row in range(share)]
        group += group[-1:] * (len(self._x) - self.rows)
        self._text = self._kernels.Attended(
            torch.stack(keys, 1).contiguous().numpy(), torch.stack(values, 1).contiguous().numpy(), np.array(group)
        )
        self._pieces = np.array(pieces)[self._text.group]
        if most > self._scratch.scores.shape[2]:
            self._scratch = self._scratch._replace(scores=_zeros(len(self._x), heads, most))

    def step(self, ids: Tensor, position: Tensor, filled: int, *, exact: bool) -> Tensor:
        """Ids int64 [N] at `position` int64 [1], the last of `filled` -> states in front of `lm_head`, float32 [N, D].

        They are overwritten by the next step, as the logits are.
        """
        x = torch.from_numpy(self._x)
        x[: self.rows] = self.embedding_norm(self.codes[ids].float() * self.scale + self.positions[position])
        with ONE_CALL:
            self._kernels.run_layers(
                self._x, filled - 1, self._layers, self._own, self._text, self._pieces, self._scratch, self._threads()
            )
        self._kernels.norm(self._x, self._final_norm, self._x)
        return x[: self.rows]

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, D] -> float32 [N, codebook_size]."""
        count = len(states)
        rows = self._scratch.normed[: count + count % 2]
        rows[:count] = states.numpy()
        with ONE_CALL:
            self._kernels.dense(self._lm_head, self._unscaled, rows, self._logits[: len(rows)], self._threads())
        return torch.from_numpy(self._logits)[:count]

    def _threads(self) -> int:
        """torch's number, which numba is told for this thread; the results are the same for any."""
        threads = min(torch.get_num_threads(), int(self._kernels.numba.config.NUMBA_NUM_THREADS))
        self._kernels.numba.set_num_threads(threads)
        return threads


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [O, I] -> int8 [O, I] and float32 [O], whose product is nearest to it."""
    scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _unscaled(weight: Tensor) -> tuple[Tensor, Tensor]:
    return weight, torch.ones(len(weight))


def _readable(weights: Tensor) -> np.ndarray:
    """float32, int8, or the bits of bfloat16 as uint16, in the memory of `weights`."""
    weights = weights.contiguous()
    return weights.view(torch.int16).numpy().view(np.uint16) if weights.dtype == torch.bfloat16 else weights.numpy()


def _scale_and_bias(norm: Norm) -> np.ndarray:
    """float32 [2, size]."""
    assert norm.bias is not None
    scale = torch.ones(norm.size) if norm.weight is None else norm.weight
    return torch.stack((scale.detach().float(), norm.bias.detach().float())).numpy()


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)
