"""Whether a row's codes are those of a model: the one check behind `vqbeam decode` and `DecodeTokens`."""

from __future__ import annotations

import numpy as np

from transforms.errors import RowRejected, amount


def fitting_codes(codes: np.ndarray, codes_per_image: int, codebook_size: int) -> np.ndarray:
    """Integers [N] of any type -> int32 [codes_per_image].

    Raises `RowRejected` (wrong_code_count, code_out_of_range) where they are not a full grid of a codebook's ids.
    """
    if len(codes) != codes_per_image:
        there = amount(len(codes), "codes")
        raise RowRejected("wrong_code_count", f"{there}; the model's grid has {codes_per_image:,}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise RowRejected("code_out_of_range", f"code {low if low < 0 else high}; the codebook has {codebook_size}")
    return codes.astype(np.int32)
