"""DALL·E BART's decoder one code at a time on a CPU: all layers of a step in one compiled call.

Replaces `models/bart/decoder.py`, with the same arithmetic, if numba is installed and this decoder is faster:
`models/bart/generator.py` chooses. Its products are of three kinds. `pairs` takes two rows at a time and reads the
weights of up to four at the speed of the memory on any processor; `panels` takes more, and int8 with a unit for it;
`tiles` needs a matrix unit for bfloat16 (Intel's AMX).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.bart.compiled import LANES, TURN
from models.bart.config import DalleBartConfig
from models.bart.network import Decoder, DecoderLayer, Norm
from models.threads import Threads
from models.whereabouts import COMPILING, tell

MOST_PAIRED_ROWS = 4  # more are faster as panels
LEAST_TILED_ROWS = 3  # with a matrix unit: fewer are faster without it
Products: TypeAlias = Literal["pairs", "panels"]
BUILT = {  # the options that are compiled: those of the published models
    "activation_function": "gelu",
    "ln_positions": "normformer",
    "ln_type": "layernorm",
    "use_bias": False,
    "use_glu": True,
}


def worth_it(config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype, products: Products) -> bool:
    """Whether this decoder can run and is faster than `CachedDecoder`."""
    name = str(dtype).removeprefix("torch.")
    return config.is_large(name) and obstacle(config, rows, device, dtype, products) is None


def obstacle(
    config: DalleBartConfig, rows: int, device: torch.device, dtype: torch.dtype, products: Products
) -> str | None:
    """The reason why this decoder cannot run, in words; None if it can."""
    if device.type != "cpu":
        return f"the device is {device}: choose cpu"
    if dtype not in (torch.float32, torch.bfloat16, torch.int8):
        return f"weights are held in {dtype}"
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
    if rows > MOST_PAIRED_ROWS and kind_of_products(rows, dtype, products) == "pairs":
        return f"this job began when {rows} rows at once, images and guidance halves, were too many"
    return None


def kind_of_products(rows: int, dtype: torch.dtype, products: Products) -> Literal["pairs", "panels", "tiles"]:
    """How the products of `rows` are computed on this processor, of the kinds that `products` allows."""
    from models.bart.compiled import panels, tiles

    if dtype == torch.bfloat16 and rows >= LEAST_TILED_ROWS and tiles.usable():
        return "tiles"
    many = rows > MOST_PAIRED_ROWS or (dtype == torch.int8 and panels.multiplies_bytes())
    return "panels" if many and products == "panels" else "pairs"


class CompiledDecoder:
    """The decoder for a fixed number of rows; the methods of `CachedDecoder`.

    Weights are held in `dtype`: float32, bfloat16, or int8 with a scale for each output; with int8 those of embeddings,
    `lm_head` and the products with captions in bfloat16. Caches are float32 with float32 and otherwise bfloat16. All
    arithmetic is float32; if a matrix unit multiplies, the inputs of a product are rounded to bfloat16 first, except
    those of `lm_head`, which keep 16 bits; if bytes are multiplied, inputs are rounded to 16 bits of a row's largest.
    From the captions' states on no bit depends on the number of threads, and no bit of a row on other rows.
    `products` is the choice of the plan, `kind` what that is here.
    """

    def __init__(
        self, decoder: Decoder, *, rows: int, codebook_size: int, dtype: torch.dtype, products: Products = "panels"
    ) -> None:
        from models.bart.compiled import layers as compiled
        from models.bart.compiled import panels, tiles
        from models.bart.compiled.products import dense_alone

        self._run_layers, self._dense, self._threads = compiled.run_layers, dense_alone, Threads()
        self._turns = compiled.turns(len(decoder.layers))
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        size, heads = decoder.embed_tokens.embedding_dim, layers[0].self_attn.heads
        length, hidden = decoder.embed_positions.num_embeddings, layers[0].glu.fc2.in_features
        rest = torch.bfloat16 if dtype == torch.int8 else dtype
        self.rows = rows
        self.scale = decoder.embedding_scale
        self.codes = decoder.embed_tokens.weight.detach().to(rest)
        self.positions = decoder.embed_positions.weight.detach().float()
        self.embedding_norm = decoder.layernorm_embedding
        self.kind = kind_of_products(rows, dtype, products)
        self._tiled = self.kind == "tiles"
        self._row_step = {"pairs": 2, "panels": 1, "tiles": tiles.TILE}[self.kind]  # a product takes whole ones
        arranged = {"pairs": None, "panels": panels.arranged, "tiles": tiles.arranged}[self.kind]

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
            room=tiles.set_up() if self._tiled else panels.room(whole, hidden + padding),
        )
        blank = torch.zeros(1, 1, size, dtype=rest), torch.ones(1, 1)
        self.begin([blank])
        tell(COMPILING)
        self.step(torch.zeros(rows, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 1, exact=True)

    def begin(self, captions: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take encoder states [G, L, D] and masks [G, L] (1 = real): each pair is for an equal share of the rows."""
        self._count = torch.get_num_threads()
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
        self._threads.run(
            self._run_layers,
            self._parts,
            self._x.numpy(),
            filled - 1,
            self._layers,
            self._final_norm,
            self._own,
            self._text,
            self._pieces,
            self._scratch,
            turns=self._turns,
            threads=self._count,
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
        room = self._room(*rows.shape)
        self._threads.run(self._dense, weight, scale, readable(rows), out.numpy(), room, turns=2, threads=self._count)

    def _room(self, rows: int, inputs: int) -> np.ndarray:
        from models.bart.compiled import panels

        kept = self._scratch.room
        return kept if self._tiled or panels.room_size(rows, inputs) <= len(kept) else panels.room(rows, inputs)

    def _whole(self, rows: int) -> int:
        """`rows`, rounded up to what a product takes."""
        return -(-rows // self._row_step) * self._row_step


def _held(weight: Tensor, dtype: torch.dtype, arranged: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    """float32 [O, I] as a product reads it, and float32 [O], what its outputs are multiplied with."""
    scale = torch.ones(len(weight))
    if dtype == torch.int8:
        scale = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        weight = (weight / scale[:, None]).round()
    held = weight.to(dtype)
    return arranged(held) if arranged else held, scale


def readable(values: Tensor) -> np.ndarray:
    """float32, bytes, or the bits of bfloat16 as uint16, in the memory of `values`."""
    values = values.contiguous()
    return values.view(torch.int16).numpy().view(np.uint16) if values.dtype == torch.bfloat16 else values.numpy()


def _scale_and_bias(norm: Norm) -> np.ndarray:
    """float32 [2, size]."""
    assert norm.bias is not None
    scale = torch.ones(norm.size) if norm.weight is None else norm.weight
    return torch.stack((scale.detach().float(), norm.bias.detach().float())).numpy()
