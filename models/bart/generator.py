"""From prompts to codes of images with DALL·E BART, at one fixed batch shape, on one device.

The step of `vqbeam generate` calls it. Text is encoded once a prompt, and its keys and values serve all images of the
prompt; both halves of guidance run in one batch, and all unconditional rows share one caption. Every image has the
model's full number of codes: there is no end sign, so no batch goes ragged.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.bart.compiled import decoder as compiled
from models.bart.compiled.decoder import CompiledDecoder, Products
from models.bart.config import DalleBartConfig
from models.bart.decoder import CachedDecoder
from models.bart.network import DalleBart, broadcast_mask
from models.bart.options import SAMPLING
from models.bart.request import RequestShape, TokenRequest, blank_caption
from models.bart.sampling import Search, guide, sample
from models.devices import (
    FASTEST,
    INT8,
    collapse_into_huge_pages,
    painting_dtype,
    resolve_device,
    resolve_drawing_dtype,
    resolve_dtype,
    set_torch_state,
    torch_dtype,
)
from models.errors import ConfigError, no_numbers
from models.whereabouts import CODES, tell

ONE_RECORDING = threading.Lock()  # a process can record only one CUDA graph at a time
BLOCK = 32  # on a GPU attention runs over the codes so far, rounded up to this: a program for each count


class TokenGenerator:
    """Draws `images_per_prompt` images for up to `prompts_per_batch` prompts a call.

    Calls are padded to the full shape, so an image depends on its own arguments only, not on its position in the batch
    or on its neighbours. `guided=False` leaves the unconditional half out, for prompts that all have guidance 1.
    `dtype` is "float32" (no TF32), "tf32" (on a GPU), "bfloat16" or "float16": what weights and caches are held in;
    logits and sampling are float32 in each. On a CPU with numba, `models/bart/compiled` draws with a large network,
    whose decoder's weights can be "int8"; `products` "pairs" is for jobs that began when it took few rows only.
    `threads` is the number of threads within an operation on a CPU, by default what torch has now; torch rounds by it,
    and by a row's position in the batch if the batch is no multiple of it. The model is not changed. Memory beside the
    weights: two caches of every layer, 2 x P x S x codes x d_model values each.
    """

    def __init__(
        self,
        model: DalleBart,
        *,
        codebook_size: int,
        prompts_per_batch: int,
        images_per_prompt: int,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        guided: bool = True,
        products: Products = "panels",
    ) -> None:
        config = model.config
        if codebook_size > config.output_size:
            raise ConfigError(
                f"the codebook has {codebook_size} codes, but the DALL·E BART predicts {config.output_size} ids: "
                "they do not belong together"
            )
        self.config = config
        self.prompts_per_batch = prompts_per_batch
        self.images_per_prompt = images_per_prompt
        self.guided = guided
        self.device = torch.device(resolve_device(device))
        self.dtype = resolve_drawing_dtype(dtype, str(self.device))
        self.threads = threads or torch.get_num_threads()
        self.length = config.image_length
        self._shape = RequestShape(
            prompts=prompts_per_batch,
            pieces=config.max_text_length,
            images=images_per_prompt,
            codes=config.image_length,
            codebook_size=codebook_size,
            guided=guided,
        )
        self._lock = threading.Lock()
        self._programs: dict[tuple[int, Search], torch.cuda.CUDAGraph] = {}
        self._recorder: tuple[torch.cuda.Stream, Any] | None = None  # of all programs, which so share their memory
        self._records = self.device.type == "cuda"
        self._marks: deque[tuple[int, torch.cuda.Event]] = deque()  # on a GPU: codes whose steps have been launched
        images = prompts_per_batch * images_per_prompt
        rows = 2 * images if guided else images
        kept = torch_dtype(self.dtype)  # in which the decoder's weights are held
        if self.dtype == INT8:
            check_int8(config, self.device, rows, products)
        held = torch.bfloat16 if self.dtype == INT8 else kept
        if products == "panels" and config.is_large(self.dtype):
            held = torch_dtype(painting_dtype(self.dtype, str(self.device)))  # of the encoder
        with torch.inference_mode():
            self.encoder = copy.deepcopy(model.encoder).eval().requires_grad_(False).to(self.device, held)
            self.decoder: CachedDecoder | CompiledDecoder
            if compiled.worth_it(config, rows, self.device, kept, products):
                self.decoder = CompiledDecoder(
                    model.decoder, rows=rows, codebook_size=codebook_size, dtype=kept, products=products
                )
            else:
                self.decoder = CachedDecoder(
                    model.decoder,
                    rows=rows,
                    predicted_rows=images,
                    codebook_size=codebook_size,
                    device=self.device,
                    dtype=kept,
                )
            self._buffers = _Buffers.empty(images, self.length, self.device)
        if self.device.type == "cpu":
            collapse_into_huge_pages()

    def generate(self, request: TokenRequest) -> np.ndarray:
        """int32 [p, S, T] for p prompts, at most P: T codes in raster order of each of S images.

        Raises `ValueError` for arrays of other shapes or out of range, and `CheckpointError` if the weights give NaN or
        infinite logits, as some do in float16.
        """
        padded, search = self._shape.padded(request), Search.covering(request.options)
        with self._lock, torch.inference_mode():
            set_torch_state(self.device, self.threads, products=self.dtype == "tf32")
            self._read_captions(padded)
            self._buffers.fill(padded, self.config.decoder_start_token_id)
            with self._undisturbed():
                for position in range(self.length):
                    self._advance(position, search)
                    self._tell(position + 1)
            finite = bool(self._buffers.health.isfinite().all())  # waits for a GPU
            self._marks.clear()
            tell(CODES, self.length, self.length)
            if not finite:
                raise no_numbers("the DALL·E BART gives logits", self.dtype)
            codes = self._buffers.codes[:, 1:].to("cpu", torch.int32).numpy()
        return codes.reshape(self.prompts_per_batch, self.images_per_prompt, -1)[: len(request.input_ids)]

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Leaves the cores to the compiled decoder, beside whose threads torch's would wait in a loop for more work."""
        before = torch.get_num_threads()
        if isinstance(self.decoder, CompiledDecoder):
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _read_captions(self, request: TokenRequest) -> None:
        """Give the captions to the decoder. The blank one needs no padding: masked pieces have no influence."""
        captions = [(request.input_ids, request.attention_mask)]
        if self.guided and self.prompts_per_batch == 1:  # two captions with equal numbers of images
            ids, mask = blank_caption(self.config.max_text_length)
            captions = [(np.concatenate((request.input_ids, ids)), np.concatenate((request.attention_mask, mask)))]
        elif self.guided:
            captions.append(blank_caption())
        self.decoder.begin([self._encoded(ids, mask) for ids, mask in captions])

    def _encoded(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[Tensor, Tensor]:
        """States [G, L, D] and mask [G, L] of captions int64 [G, L]."""
        mask = torch.from_numpy(attention_mask).to(self.device)
        return self.encoder(torch.from_numpy(input_ids).to(self.device), broadcast_mask(mask)), mask

    def _advance(self, position: int, search: Search) -> None:
        """Draw the code after `position` for every image."""
        if not self._records:
            self._step(position + 1, search, exact=True)
            return
        filled = min(self.length, (position // BLOCK + 1) * BLOCK)
        program = self._programs.get((filled, search))
        if program is None:
            program = self._programs[filled, search] = self._record(filled, search)
        program.replay()

    def _tell(self, drawn: int) -> None:
        """Say how many codes are drawn. Steps are only launched here on a GPU: told is what it has done, and it always
        has a block to go on with."""
        if not self._records:
            tell(CODES, drawn, self.length)
        elif drawn % BLOCK == 0:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self._marks.append((drawn, event))
            if len(self._marks) > 2:
                done, before = self._marks.popleft()
                before.synchronize()
                tell(CODES, done, self.length)

    def _record(self, filled: int, search: Search) -> torch.cuda.CUDAGraph:
        """The step as one CUDA graph, which launches its hundreds of kernels at once.

        A first run outside the graph lets the libraries initialise; the first replay overwrites its results. Other
        threads may use this GPU or another meanwhile; torch's own stream for recording belongs to one GPU only.
        """
        position = self._buffers.position.clone()
        program = torch.cuda.CUDAGraph()
        with ONE_RECORDING, torch.cuda.device(self.device):
            side, pool = self._recorder = self._recorder or (torch.cuda.Stream(), torch.cuda.graph_pool_handle())
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(filled, search)
            torch.cuda.current_stream().wait_stream(side)
            self._buffers.position.copy_(position)
            with torch.cuda.graph(program, pool=pool, stream=side, capture_error_mode="thread_local"):
                self._step(filled, search)
        return program

    def _step(self, filled: int, search: Search, *, exact: bool = False) -> None:
        b = self._buffers
        ids = b.codes.index_select(1, b.position)[:, 0]
        states = self.decoder.step(ids.repeat(2) if self.guided else ids, b.position, filled, exact=exact)
        if self.guided:
            # lm_head is linear: guiding before it halves its work, and no logit is rounded before it is amplified.
            cond, uncond = states.chunk(2)
            states = guide(cond, uncond, b.options["guidance_scale"])
        uniform = b.uniforms.index_select(1, b.position)[:, 0]
        logits = self.decoder.logits(states)
        b.health.add_(logits.sum(1))
        drawn = sample(logits, b.options, uniform, search)
        kept = b.prefix.index_select(1, b.position)[:, 0]
        code = torch.where(b.position < b.keep, kept, drawn)
        b.position.add_(1)
        b.codes.index_copy_(1, b.position, code[:, None])


def fastest_dtype(config: DalleBartConfig, images: int, device: str) -> str:
    """The dtype that draws this many images at once in the least time on `device`, "cpu" or a GPU.

    Weights of 8 bits, if the network is worth compiling; but a matrix unit draws three images and more faster.
    """
    if config.is_large("bfloat16") and compiled.obstacle(config, 1, torch.device(device), torch.int8, "panels") is None:
        rows = 2 * images
        if rows <= compiled.MOST_PAIRED_ROWS or compiled.kind_of_products(rows, torch.bfloat16, "panels") != "tiles":
            return INT8
    return resolve_dtype(FASTEST, device)


def check_int8(config: DalleBartConfig, device: torch.device, rows: int = 1, products: Products = "panels") -> None:
    """Raise `ConfigError` if weights of 8 bits cannot draw."""
    obstacle = compiled.obstacle(config, rows, device, torch.int8, products)
    if obstacle is not None:
        raise ConfigError(f"dtype int8 is for drawing on a CPU, but {obstacle}")


@dataclass(frozen=True)
class _Buffers:
    """The tensors that a step reads and writes, at fixed addresses on the device; N images of T codes."""

    codes: Tensor  # int64 [N, T + 1]: the start id, then what was drawn
    position: Tensor  # int64 [1]: of the code that is fed next
    uniforms: Tensor  # float64 [N, T]
    options: Mapping[str, Tensor]  # int64 or float32 [N] for each of `SAMPLING`
    prefix: Tensor  # int64 [N, T]
    keep: Tensor  # int64 [N]
    health: Tensor  # float32 [N]: the sum of all logits, which is NaN or infinite if one of them is

    @classmethod
    def empty(cls, images: int, length: int, device: torch.device) -> _Buffers:
        new = partial(torch.zeros, device=device)
        return cls(
            codes=new(images, length + 1, dtype=torch.int64),
            position=new(1, dtype=torch.int64),
            uniforms=new(images, length, dtype=torch.float64),
            options={
                name: new(images, dtype=torch.int64 if option.is_whole else torch.float32)
                for name, option in SAMPLING.items()
            },
            prefix=new(images, length, dtype=torch.int64),
            keep=new(images, dtype=torch.int64),
            health=new(images),
        )

    def fill(self, request: TokenRequest, start_id: int) -> None:
        """Take the arrays of a padded request."""
        self.codes[:, 0] = start_id
        self.position.zero_()
        self.health.zero_()
        for buffers, arrays in ((vars(self), vars(request)), (self.options, request.options)):
            for name in buffers.keys() & arrays.keys() - {"options"}:
                buffers[name].copy_(torch.from_numpy(arrays[name]))
