"""Fingerprints of weights: stored with tokens, compared before they are decoded, part of that of a job."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def codebook_id(codebook: Tensor) -> str:
    """SHA-256 (hex) of a codebook [n_embed, embed_dim] as little-endian float16 in C order.

    In float16, so that a checkpoint, its half-precision copy and its decoder alone have one id.
    """
    import torch

    half = codebook.detach().to("cpu", torch.float16).contiguous().numpy().astype("<f2", copy=False)
    return hashlib.sha256(half.reshape(-1).data).hexdigest()


def weights_id(leaves: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over all weights under our names, whatever their order, file format or width.

    Values are taken as float32, which holds float16 and bfloat16 exactly; one leaf is in memory at a time.
    """
    import torch

    lines = []
    for name, leaf in leaves:
        values = leaf.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest = hashlib.sha256(values.reshape(-1).data).hexdigest()
        lines.append(f"{name} {list(leaf.shape)} {digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def remembered(folder: Path, files: Iterable[Path], also: str, compute: Callable[[], str]) -> str:
    """Caches `compute()` in `folder`, keyed by each file's path, size and mtime, and by `also`.

    Reading gigabytes at each start would take longer than loading them.
    """
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    kept = folder / hashlib.sha256(repr([stamps, also]).encode()).hexdigest()
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    result = compute()
    with suppress(OSError):  # without a cache it is computed each time
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", delete=False, encoding="utf-8") as scratch:
            scratch.write(result)
        os.replace(scratch.name, kept)
    return result
