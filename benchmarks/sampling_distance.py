"""How far reduced precision moves the distribution that each code of the emoji model is drawn from.

python -m benchmarks.sampling_distance            half a minute on a CPU
python -m benchmarks.sampling_distance --quick    one short image: shows that the script works
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.support import machine
from benchmarks.support.emoji import MODEL, PROMPTS
from models.bart.compiled import panels, tiles
from models.bart.compiled.decoder import MOST_PAIRED_ROWS, CompiledDecoder, Products
from models.bart.decoder import CachedDecoder
from models.bart.network import DalleBart, broadcast_mask
from models.bart.request import blank_caption
from models.bart.sampling import guide, kept_weights
from models.bart.text import open_text_encoder
from models.find import find
from models.uniforms import uniforms

GUIDANCE = (1.0, 2.0, 10.0)
TOP_K = 50
CPU = machine.CPU
ROWS = 2  # of one image with its guidance
MANY_ROWS = 2 * (MOST_PAIRED_ROWS + 1)  # repetitions of that image, enough for panels or a matrix unit to be used


@dataclass(frozen=True)
class Contender:
    name: str
    decoder: CachedDecoder | CompiledDecoder
    encoder: torch.nn.Module
    rows: int = ROWS


@dataclass(frozen=True)
class Caption:
    """One prompt and the blank one, int64 [2, L] each; `key` decides the random numbers."""

    key: str
    ids: Tensor
    mask: Tensor


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling_distance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one prompt")
    args = parser.parse_args(argv)
    print(f"{machine.describe()}\n", flush=True)
    checkpoint = find(str(MODEL), "").bart
    model = checkpoint.load()
    captions = _captions(checkpoint.path, model, 1 if args.quick else None)
    with torch.inference_mode():
        exact, *others = _contenders(model)
        print(f"| {len(captions)} prompts | " + " | ".join(f"guidance {scale:g}" for scale in GUIDANCE) + " |")
        print("|---" * (1 + len(GUIDANCE)) + "|")
        references = {scale: [_drawn(exact, model, caption, scale) for caption in captions] for scale in GUIDANCE}
        for other in others:
            cells = []
            for scale, reference in references.items():
                moved = np.concatenate(
                    [
                        _distances(other, model, caption, scale, *drawn)
                        for caption, drawn in zip(captions, reference, strict=True)
                    ]
                )
                cells.append(f"{moved.mean():.2%}, at most {moved.max():.1%}")
            print(f"| {other.name} | {' | '.join(cells)} |", flush=True)
    return 0


def _captions(folder: Path, model: DalleBart, most: int | None) -> list[Caption]:
    texts = PROMPTS.read_text(encoding="utf-8").splitlines()[:most]
    encoded = open_text_encoder(folder, model.config).encode(texts, texts)
    blank_ids, blank_mask = blank_caption(model.config.max_text_length)
    return [
        Caption(
            text,
            torch.from_numpy(np.concatenate((encoded.input_ids[i : i + 1], blank_ids)).astype(np.int64)),
            torch.from_numpy(np.concatenate((encoded.attention_mask[i : i + 1], blank_mask)).astype(np.int64)),
        )
        for i, text in enumerate(texts)
    ]


def _contenders(model: DalleBart) -> Iterator[Contender]:
    """The contenders, the exact one first."""
    size = model.config.image_vocab_size
    encoders = {dtype: copy.deepcopy(model.encoder).to(dtype) for dtype in (torch.float32, torch.bfloat16)}

    def cached(dtype: torch.dtype) -> CachedDecoder:
        return CachedDecoder(model.decoder, rows=ROWS, predicted_rows=1, codebook_size=size, device=CPU, dtype=dtype)

    def compiled(dtype: torch.dtype, rows: int = ROWS, products: Products = "panels") -> CompiledDecoder:
        return CompiledDecoder(model.decoder, rows=rows, codebook_size=size, dtype=dtype, products=products)

    exact, half = encoders[torch.float32], encoders[torch.bfloat16]
    yield Contender("float32", cached(torch.float32), exact)
    yield Contender("float32, compiled", compiled(torch.float32), exact)
    yield Contender("bfloat16", cached(torch.bfloat16), half)
    yield Contender("bfloat16, compiled, one image", compiled(torch.bfloat16), half)
    many = "matrix unit" if tiles.usable() else "panels"
    yield Contender(f"bfloat16, compiled, {many}", compiled(torch.bfloat16, MANY_ROWS), half, MANY_ROWS)
    yield Contender("int8, compiled, one image", compiled(torch.int8, products="pairs"), half)
    units = ", products of bytes" if panels.multiplies_bytes() else ""
    yield Contender(f"int8, compiled, panels{units}", compiled(torch.int8, MANY_ROWS), half, MANY_ROWS)


def _drawn(exact: Contender, model: DalleBart, caption: Caption, scale: float) -> tuple[list[int], Tensor]:
    """The codes of one image, and the distributions they were drawn from, float32 [T, codes]."""
    codes: list[int] = []
    rows = []
    numbers = uniforms(0, caption.key, 0, model.config.image_length)
    for row in _distributions(exact, model, caption, scale, codes):
        rows.append(row)
        codes.append(min(int(torch.searchsorted(row.cumsum(0), float(numbers[len(codes)]))), len(row) - 1))
    return codes, torch.stack(rows)


def _distances(
    other: Contender, model: DalleBart, caption: Caption, scale: float, codes: list[int], expected: Tensor
) -> np.ndarray:
    """The total variation distance of each step, [T] in [0, 1], after the same codes."""
    found = torch.stack(list(_distributions(other, model, caption, scale, codes)))
    return np.asarray((found - expected).abs().sum(1) / 2)


def _distributions(
    contender: Contender, model: DalleBart, caption: Caption, scale: float, codes: list[int]
) -> Iterator[Tensor]:
    """The distribution of each code, float32 [codes], after the ones before it in `codes`, which may grow meanwhile."""
    one = torch.ones(1)
    contender.decoder.begin([(contender.encoder(caption.ids, broadcast_mask(caption.mask)), caption.mask)])
    for position in range(model.config.image_length):
        code = codes[position - 1] if position else model.config.decoder_start_token_id
        ids = torch.full((contender.rows,), code)
        cond, uncond = contender.decoder.step(ids, torch.tensor([position]), position + 1, exact=True).chunk(2)
        logits = contender.decoder.logits(guide(cond[:1], uncond[:1], scale * one))
        weights = kept_weights(logits, {"temperature": one, "top_k": torch.tensor([TOP_K]), "top_p": one})[0]
        yield (weights / weights.sum()).float()


if __name__ == "__main__":
    sys.exit(main())
