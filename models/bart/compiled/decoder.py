"""DALL·E BART's decoder one code at a time on a CPU: all layers of a step in one compiled call.

Replaces `models/bart/decoder.py`, with the same arithmetic, if numba is installed and this decoder is faster:
`models/bart/generator.py` chooses. A product of up to four rows reads its weights at the speed of the memory on
any processor; one of more rows needs a matrix unit for bfloat16 (Intel's AMX).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.bart.compiled import LANES, TURN
from models.bart.config import DalleBartConfig
from models.bart.network import Decoder, DecoderLayer, Norm
from models.one_call import ONE_CALL

MOST_ROWS = 4  # without a matrix unit: more are faster with `models/bart/decoder.py`
LEAST_TILED_ROWS = 3  # with one: fewer are faster without it
LEAST_BYTES = 1 << 26  # of weights: what stays in a processor's caches gains little, and compiling takes seconds
BUILT = {  # the options that are compiled: those of the published models
    "activation_function": "gelu",
    "ln_positions": "normformer",
    "ln_type": "layernorm",
    "use_bias": False,
    "use_glu": True,
}


def worth_it(config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this decoder can run and is faster than `CachedDecoder`."""
    return config.decoder_weights * dtype.itemsize >= LEAST_BYTES and obstacle(config, rows, device, dtype) is None


def obstacle(config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why this decoder cannot run, in words; None if it can."""
    if device.type != "cpu":
        return f"the device is {device}: choose cpu"
    if dtype not in (torch.float32, torch.bfloat16, torch.int8):
        return f"weights are held in {dtype}"
    if rows > MOST_ROWS and dtype != torch.bfloat16:
        return f"{rows} rows at once, images and guidance halves, are more than {MOST_ROWS}"
    other = [f"{name} {getattr(config, name)}" for name, value in BUILT.items() if getattr(config, name) != value]
    head = config.d_model // config.decoder_attention_heads
    for name, size, multiple in (("a width", config.d_model, TURN), ("heads", head, LANES)):
        if size % multiple:
            other.append(f"{name} of {size}, which is no multiple of {multiple}")
    if other:
        return "the network has " + " and ".join(other)
    try:
        importlib.import_module("numba")
    except (ImportError, OSError) as error:  # not there, or not made for this numpy or this system
        return f"numba cannot be used ({error}): pip install numba"
    if rows > MOST_ROWS and not _tiled(rows, dtype):
        return f"{rows} rows at once need a processor with a matrix unit"
    return None


def _tiled(rows: int, dtype: torch.dtype) -> bool:
    """Whether the matrix unit computes the products."""
    from models.bart.compiled import tiles

    return dtype == torch.bfloat16 and rows >= LEAST_TILED_ROWS and tiles.usable()


class CompiledDecoder:
    """The decoder for a fixed number of rows; the methods of `CachedDecoder`.

    Weights are held in `dtype`: float32, bfloat16, or int8 with a scale for each output; with int8 those of embeddings,
    `lm_head` and the products with captions in bfloat16. Caches are float32 with float32 and otherwise bfloat16. All
    arithmetic is float32; if a matrix unit multiplies, the inputs of a product are rounded to bfloat16 first, except
    those of `lm_head`, which keep 16 bits. From the captions' states on no bit depends on the number of threads, and no
    bit of a row on other rows.
    """

    def __init__(self, decoder: Decoder, *, rows: int, codebook_size: int, dtype: torch.dtype) -> None:
        from models.bart.compiled import compiling, products, tiles
        from models.bart.compiled import layers as compiled

        self._run_layers, self._dense, self._use_threads = compiled.run_layers, products.dense, compiling.use_threads
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        size, heads = decoder.embed_tokens.embedding_dim, layers[0].self_attn.heads
        length, hidden = decoder.embed_positions.num_embeddings, layers[0].glu.fc2.in_features
        rest = torch.bfloat16 if dtype == torch.int8 else dtype
        self.rows = rows
        self.scale = decoder.embedding_scale
        self.codes = decoder.embed_tokens.weight.detach().to(rest)
        self.positions = decoder.embed_positions.weight.detach().float()
        self.embedding_norm = decoder.layernorm_embedding
        self._tiled = _tiled(rows, dtype)
        self._row_step = tiles.TILE if self._tiled else 2  # products take whole tiles of rows, or pairs
        arranged = tiles.arranged if self._tiled else None

        def matrices(*names: str, kept: torch.dtype = dtype, inputs: int = 0, outputs: int = 0) -> Any:
            """Those of `names` side by side, in each layer; `inputs` and `outputs` of zeros are added to each."""
            held = []
            for layer in layers:
                each = (layer.get_parameter(f"{name}.weight").detach() for name in names)
                merged = torch.cat([F.pad(weight, (0, inputs, 0, outputs)) for weight in each])
                held.append(_held(merged, kept, arranged))
            weights, scales = zip(*held, strict=True)
            return compiled.Matrices(readable(torch.stack(weights)), torch.stack(scales).numpy())

        def norms(name: str) -> np.ndarray:
            return np.stack([_scale_and_bias(cast("Norm", layer.get_submodule(name))) for layer in layers])

        padding = -hidden % TURN
        self._layers = compiled.Layers(
            own_norm=norms("pre_self_attn_layer_norm"),
            own_in=matrices("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            own_out=matrices("self_attn.out_proj"),
            own_branch_norm=norms("self_attn_layer_norm"),
            text_norm=norms("pre_encoder_attn_layer_norm"),
            text_in=matrices("encoder_attn.q_proj"),
            text_out=matrices("encoder_attn.out_proj"),
            text_branch_norm=norms("encoder_attn_layer_norm"),
            glu_norm=norms("glu.ln0"),
            glu_in=matrices("glu.fc0", "glu.fc1", outputs=padding),
            hidden_norm=norms("glu.ln1"),
            glu_out=matrices("glu.fc2", inputs=padding),
        )
        self._text_keys_values = matrices("encoder_attn.k_proj", "encoder_attn.v_proj", kept=rest)
        self._final_norm = _scale_and_bias(decoder.final_ln)
        head, scale = _held(decoder.lm_head.weight.detach()[:codebook_size], rest, arranged)
        self._lm_head, self._lm_head_scale = readable(head), scale.numpy()
        self._codebook_size = codebook_size
        self._x = torch.zeros(rows, size)
        whole = self._whole(rows)
        self._operand = operand = torch.bfloat16 if self._tiled else torch.float32
        self._states = torch.zeros(2 * whole, size, dtype=operand)
        self._logits = torch.zeros(2 * whole, -(-codebook_size // self._row_step) * self._row_step)
        cached = (len(layers), rows, heads, length, size // heads)
        keys, values = (readable(torch.zeros(cached, dtype=rest)) for _ in range(2))
        self._own = compiled.Attended(keys, values, np.arange(rows))
        self._parts = (0,) * (size // heads // LANES)
        self._scratch = compiled.Scratch(
            normed=readable(torch.zeros(whole, size, dtype=operand)),
            found=readable(torch.zeros(whole, size, dtype=operand)),
            hidden=readable(torch.zeros(whole, hidden + padding, dtype=operand)),
            projected=np.zeros((whole, 3 * size), np.float32),
            branch=np.zeros((whole, size), np.float32),
            gated=np.zeros((whole, 2 * (hidden + padding)), np.float32),
            scores=np.zeros((compiling.most_threads(), length), np.float32),
            tiles=tiles.set_up(),
        )
        blank = torch.zeros(1, 1, size, dtype=rest), torch.ones(1, 1)
        self.begin([blank])
        self.step(torch.zeros(rows, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 1, exact=True)  # compiles

    def begin(self, captions: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take encoder states [G, L, D] and masks [G, L] (1 = real): each pair is for an equal share of the rows."""
        share = self.rows // len(captions)
        texts: list[Tensor] = []
        group: list[int] = []
        for states, mask in captions:
            group += [len(texts) + row // (share // len(states)) for row in range(share)]
            texts += [caption[real] for caption, real in zip(states, mask.bool(), strict=True)]
        pieces = np.array([len(text) for text in texts])
        most = int(pieces.max())
        keys, values = self._keys_and_values(texts, most)
        self._text = self._own._replace(keys=readable(keys), values=readable(values), group=np.array(group))
        self._pieces = pieces[self._text.group]
        if most > self._scratch.scores.shape[1]:
            self._scratch = self._scratch._replace(scores=np.zeros((len(self._scratch.scores), most), np.float32))

    def _keys_and_values(self, texts: Sequence[Tensor], positions: int) -> tuple[Tensor, Tensor]:
        """States [pieces, D] of each of G captions -> their keys and values, [layers, G, heads, positions, head size].

        The pieces of all captions are the rows of one product a layer. A row's sums depend neither on how many others
        there are nor on the number of threads: torch's own products round by both on some processors.
        """
        layers, _, heads, _, size = self._own.keys.shape
        lengths = [len(text) for text in texts]
        count, whole = sum(lengths), self._whole(sum(lengths))
        rows = F.pad(torch.cat(list(texts)).to(self.codes.dtype).to(self._operand), (0, 0, 0, whole - count))
        found = torch.empty(whole, 2, heads, size)
        both = torch.zeros(2, layers, len(texts), heads, positions, size, dtype=self.codes.dtype)
        weight, scale = self._text_keys_values
        for layer in range(layers):
            self._multiply(weight[layer], scale[layer], rows, found.view(whole, -1))
            for number, part in enumerate(found[:count].split(lengths)):
                both[:, layer, number, :, : len(part)] = part.permute(1, 2, 0, 3)
        return both[0], both[1]

    def step(self, ids: Tensor, position: Tensor, filled: int, *, exact: bool) -> Tensor:
        """Ids int64 [N] at `position` int64 [1], the last of `filled` -> states in front of `lm_head`, float32 [N, D].

        They are overwritten by the next step.
        """
        self._x.copy_(self.embedding_norm(self.codes[ids].float() * self.scale + self.positions[position]))
        with ONE_CALL:
            self._run_layers(
                self._parts,
                self._x.numpy(),
                filled - 1,
                self._layers,
                self._final_norm,
                self._own,
                self._text,
                self._pieces,
                self._scratch,
                self._use_threads(torch.get_num_threads()),
            )
        return self._x

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, D] -> float32 [N, codebook_size]."""
        count = len(states)
        whole = self._whole(count)
        rows, found = self._states[:whole], self._logits[:whole]
        if self._tiled:  # a product of bfloat16 with what states are rounded to, and one with what that leaves
            rows, found = self._states[: 2 * whole], self._logits[: 2 * whole]
            rows[whole : whole + count] = states - states.bfloat16().float()
        rows[:count] = states
        self._multiply(self._lm_head, self._lm_head_scale, rows, found)
        logits = found[:count] + found[whole : whole + count] if self._tiled else found[:count]
        return logits[:, : self._codebook_size]

    def _multiply(self, weight: np.ndarray, scale: np.ndarray, rows: Tensor, out: Tensor) -> None:
        """`rows` [whole, inputs] times a matrix as `_held` gives it -> float32 `out` [whole, outputs or more]."""
        with ONE_CALL:
            threads = self._use_threads(torch.get_num_threads())
            self._dense(weight, scale, readable(rows), out.numpy(), self._scratch.tiles, threads)

    def _whole(self, rows: int) -> int:
        """`rows`, rounded up to what a product takes."""
        return -(-rows // self._row_step) * self._row_step


def _held(weight: Tensor, dtype: torch.dtype, arranged: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    """float32 [O, I] as a product reads it, and float32 [O], what its outputs are multiplied with."""
    if dtype == torch.int8:
        scale = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return (weight / scale[:, None]).round().to(torch.int8), scale
    return arranged(weight) if arranged else weight.to(dtype), torch.ones(len(weight))


def readable(values: Tensor) -> np.ndarray:
    """float32, int8, or the bits of bfloat16 as uint16, in the memory of `values`."""
    values = values.contiguous()
    return values.view(torch.int16).numpy().view(np.uint16) if values.dtype == torch.bfloat16 else values.numpy()


def _scale_and_bias(norm: Norm) -> np.ndarray:
    """float32 [2, size]."""
    assert norm.bias is not None
    scale = torch.ones(norm.size) if norm.weight is None else norm.weight
    return torch.stack((scale.detach().float(), norm.bias.detach().float())).numpy()
