"""Dense layers for the few rows of a token step: merged where they read the same rows, in the layout that is fastest.

Few rows make a product a matter of reading its weights. On a CPU, oneDNN's own blocked layout is read faster than the
plain one, which it otherwise arranges anew at every call (`benchmarks/products.py` measures by how much).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_PACKED_ROWS = 4  # in float32: fewer are faster with the plain layout


class Dense:
    """[rows, inputs] -> [rows, outputs of the first layer, outputs of the second, ...].

    `inputs` and `outputs` of each layer may be rounded up, with zeros for weights: whole tiles of a processor's matrix
    unit are faster than a ragged end.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None] = (),
        *,
        rows: int,
        device: torch.device,
        dtype: torch.dtype,
        inputs: int = 0,
        outputs: int = 0,
    ) -> None:
        padded = [F.pad(w, (0, max(0, inputs - w.shape[1]), 0, max(0, outputs - len(w)))) for w in weights]
        self.weight = torch.cat(padded).detach().to(device, dtype)
        given = [F.pad(bias, (0, max(0, outputs - len(bias)))) for bias in biases if bias is not None]
        self.bias = torch.cat(given).detach().to(device, dtype) if given else None
        self.packed = device.type == "cpu" and _worth_packing(rows, dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    @classmethod
    def of(
        cls,
        *layers: nn.Linear,
        rows: int,
        device: torch.device,
        dtype: torch.dtype,
        inputs: int = 0,
        outputs: int = 0,
    ) -> Dense:
        """The layers as one product."""
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return cls(weights, biases, rows=rows, device=device, dtype=dtype, inputs=inputs, outputs=outputs)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)

    def activated(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """`activation` of the product, of its unrounded value where the two can be one operation."""
        if self.packed and activation is F.gelu:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
        return activation(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The product, times `other` element by element."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "mul")
        return self(x) * other


def _worth_packing(rows: int, dtype: torch.dtype) -> bool:
    """Whether this build of torch has the blocked layout for `dtype`, and it is the faster one."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operators, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(operators._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(operators._is_mkldnn_fp16_supported())
    return rows >= LEAST_PACKED_ROWS
