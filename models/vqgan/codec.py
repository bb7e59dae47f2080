"""A running network: images to codes and back in numpy, at one fixed batch shape, on one device.

`TorchCodec` is the default backend, `models/vqgan/jax_codec.py` the other.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.devices import resolve_device, resolve_dtype, set_torch_state, torch_dtype
from models.image_tokenizer import TokenizerSpec
from models.tokenizer_network import TokenizerNetwork
from models.winograd.layers import suits, use_winograd

logger = logging.getLogger(__name__)


class TorchCodec:
    """A network of ours. Each call is padded to `batch_size`, so a row's result does not depend on its neighbours.
    Images and grids of another size than the model's go uncompiled, since each would be compiled anew, and fewer at
    once if they are larger.

    `dtype` is "float32" (no TF32), "tf32" (on a GPU), "bfloat16" or "float16"; the quantiser is float32 in each.
    `threads` is the number of threads within an operation on a CPU, by default what torch has now; torch rounds by
    it, and by a row's position in the batch if the threads have unequal shares. `compiled` is by default true on a
    GPU; without a compiler the network runs uncompiled, with a warning. A GPU that runs out of memory gets half the
    batch at a time from then on.

    `convolutions` is "direct", "winograd" (faster on a CPU in float32; elsewhere it is direct, too), or "auto": as
    `models.winograd.layers.suits` says.
    """

    def __init__(
        self,
        model: TokenizerNetwork,
        *,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        compiled: bool | None = None,
        convolutions: str = "auto",
    ) -> None:
        self.spec: TokenizerSpec = model.config.spec(
            name=name, has_encoder=model.has_encoder, has_decoder=model.has_decoder
        )
        self.device = torch.device(resolve_device(device))
        self.dtype = resolve_dtype(dtype, str(self.device))
        self.batch_size = batch_size or self.spec.batch_size(str(self.device))
        self.threads = threads or torch.get_num_threads()
        self.model = model.for_inference(self.device, torch_dtype(self.dtype))
        if convolutions == "auto":
            convolutions = "winograd" if suits(str(self.device), self.dtype, self.spec.flops) else "direct"
        self.convolutions = "direct"
        if convolutions == "winograd" and (self.device.type, self.dtype) == ("cpu", "float32") and not compiled:
            use_winograd(self.model, self.threads)
            self.convolutions = convolutions
        self._lock = threading.Lock()
        self._rows = self.batch_size  # computed at once
        self._staging: Tensor | None = None
        self._compiled = self.device.type == "cuda" if compiled is None else compiled
        if self._compiled:
            for name, part in self.model.named_children():
                if name in ("encoder", "decoder"):
                    part.compile(dynamic=False)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`; H and W are multiples of the model's factor."""
        self.spec.check_images(images, self.batch_size)
        return self._run(self.model.encode, images, torch.int32, self._grid(images))

    @property
    def codebook(self) -> np.ndarray:
        """See `ImageTokenizer`."""
        return self.model.quantize.codebook.detach().to("cpu", torch.float32).numpy()

    def latents(self, images: np.ndarray) -> np.ndarray:
        """See `LatentTokenizer`."""
        self.spec.check_images(images, self.batch_size)
        return self._run(self._latents, images, torch.float32, self._grid(images))

    def _latents(self, images: Tensor) -> Tensor:
        return self.model.quantize.comparable(self.model.image_latents(images))

    def quantise(self, latents: np.ndarray) -> np.ndarray:
        """See `LatentTokenizer`."""
        return self._run(self.model.codes, latents, torch.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`."""
        self.spec.check_codes(codes, self.batch_size)
        return self._run(self.model.decode, codes.astype(np.int64, copy=False), torch.uint8)

    def decode_grid(self, codes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """See `AnyGridTokenizer`."""
        self.spec.check_codes(codes, self.batch_size, grid)
        function = partial(self.model.decode, grid=grid)
        return self._run(function, codes.astype(np.int64, copy=False), torch.uint8, grid)

    def _grid(self, images: np.ndarray) -> tuple[int, int]:
        return images.shape[1] // self.spec.factor, images.shape[2] // self.spec.factor

    def _run(
        self,
        function: Callable[[Tensor], Tensor],
        rows: np.ndarray,
        dtype: torch.dtype,
        grid: tuple[int, int] | None = None,
    ) -> np.ndarray:
        own = grid in (None, (self.spec.grid, self.spec.grid))
        with self._lock, nullcontext() if own else self._uncompiled():
            # The quantiser is matrix products only, the rest mostly convolutions: it stays float32 under "tf32".
            set_torch_state(self.device, self.threads, convolutions=self.dtype == "tf32")
            results = []
            start = 0
            while start < max(1, len(rows)):  # without rows the padding alone gives the shape
                size = self._rows_of(grid)
                part = rows[start : start + size]
                result = self._compute(function, part, dtype, size)
                if result is not None:
                    results.append(result[: len(part)])
                    start += size
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _rows_of(self, grid: tuple[int, int] | None) -> int:
        """How many rows are computed at once: fewer than `_rows` of larger grids than the model's."""
        codes = self.spec.codes_per_image
        return max(1, self._rows * codes // max(codes, grid[0] * grid[1] if grid else 0))

    @contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """The parts of the network as if none had been compiled."""
        compiled = [(part, part._compiled_call_impl) for part in self.model.children()]
        try:
            for part, _ in compiled:
                part._compiled_call_impl = None
            yield
        finally:
            for part, implementation in compiled:
                part._compiled_call_impl = implementation

    def _compute(
        self, function: Callable[[Tensor], Tensor], part: np.ndarray, dtype: torch.dtype, size: int
    ) -> np.ndarray | None:
        """The result of one batch; None if it must be computed again, in smaller batches or uncompiled."""
        try:
            return function(self._padded(part, size)).to("cpu", dtype).numpy()
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        except _compile_errors() as error:
            if not self._compiled:
                raise
            logger.warning("torch.compile failed, the network runs uncompiled and slower: %s", str(error)[:500])
            self._compiled = False
            for module in self.model.children():
                module._compiled_call_impl = None
            return None
        # The failed call's tensors are gone by now, so the cache can release their memory.
        self._staging = None
        self._rows = -(-self._rows // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%s is out of memory: going on with %d rows at a time", self.device, self._rows)
        return None

    def _padded(self, part: np.ndarray, size: int) -> Tensor:
        """The rows on the device, padded with zeros to the batch shape; pinned memory takes them to a GPU."""
        source = torch.from_numpy(np.require(part, requirements=("C", "W")))  # torch warns of read-only memory
        shape = (size, *part.shape[1:])
        staging = self._staging
        if staging is None or staging.shape != shape or staging.dtype != source.dtype:
            staging = torch.empty(shape, dtype=source.dtype, pin_memory=self.device.type == "cuda")
            self._staging = staging
        staging[: len(part)] = source
        staging[len(part) :] = 0
        return staging.to(self.device, non_blocking=True)


def _compile_errors() -> tuple[type[Exception], ...]:
    """The errors of a network that cannot be compiled. Importing their module would take a second."""
    module = sys.modules.get("torch._dynamo.exc")
    return (module.TorchDynamoException,) if module else ()
