"""Trains a small transformer to draw images of codes for captions, from tables of `vqbeam encode`.

    vqbeam encode --input examples/emoji/sample/emoji-00000.tar --output tokens
    python -m examples.train_tokens.train --tokens tokens --output model

Killed and started again it goes on behind its last checkpoint, with the next rows. With `torchrun --nproc_per_node 2`
two processes share the rows; each step then takes the same rows as before, if each has half of the batch.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import vqbeam

WORDS = 4096  # of captions, by their hash
LONGEST = 16  # words of a caption
BATCH, WIDTH, LAYERS, HEADS, RATE = 32, 128, 2, 4, 2e-3


class Painter(nn.Module):
    """Predicts each code of an image from the caption and the codes before it."""

    def __init__(self, codebook: int, length: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, WIDTH)
        self.codes = nn.Embedding(codebook, WIDTH)
        self.places = nn.Parameter(torch.randn(length, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, codebook)
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, words: Tensor, codes: Tensor) -> Tensor:
        """int64 [B, W], int64 [B, T] -> logits [B, T, codebook]; the first is for the caption alone."""
        before = torch.cat([self.words(words)[:, None], self.codes(codes[:, :-1])], 1)
        return self.head(self.layers(before + self.places, mask=self.later, is_causal=True))


def hashed_words(captions: Sequence[str]) -> Tensor:
    """int64 [B, W]: the words of each caption, repeated to an equal number."""
    rows = [caption.lower().split()[:LONGEST] or [""] for caption in captions]
    full = [(words * LONGEST)[:LONGEST] for words in rows]
    return torch.tensor([[zlib.crc32(word.encode()) % WORDS for word in words] for words in full])


def train(tokens: str, output: Path, steps: int, workers: int = 0, save_every: int = 100) -> list[float]:
    """Train up to step `steps`; returns the loss of each step of this run."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        torch.distributed.init_process_group("gloo")
    rows = vqbeam.TokenDataset(tokens, shuffle=True, seed=1, epochs=1_000_000, batch_size=BATCH // ranks)
    torch.manual_seed(0)
    first = next(iter(vqbeam.TokenDataset(tokens)))["encoding"]
    painter = Painter(codebook=1024, length=len(first))
    optimiser = torch.optim.AdamW(painter.parameters(), RATE)
    done = 0
    if (output / "checkpoint.pt").exists():
        saved = torch.load(output / "checkpoint.pt", weights_only=True)
        painter.load_state_dict(saved["painter"])
        optimiser.load_state_dict(saved["optimiser"])
        done = saved["step"]
    rows.load_state_dict({"rows": done * BATCH})  # what all ranks took together
    model = nn.parallel.DistributedDataParallel(painter) if ranks > 1 else painter
    losses: list[float] = []
    loader = DataLoader(rows, BATCH // ranks, num_workers=workers)
    for step, batch in enumerate(islice(loader, steps - done), done + 1):
        logits = model(hashed_words(batch["caption"]), batch["encoding"])
        loss = F.cross_entropy(logits.flatten(0, 1), batch["encoding"].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {sum(losses[-50:]) / len(losses[-50:]):.3f}", flush=True)
        if (step % save_every == 0 or step == steps) and int(os.environ.get("RANK", 0)) == 0:
            output.mkdir(parents=True, exist_ok=True)
            state = {"painter": painter.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save(state, output / "checkpoint.part")
            os.replace(output / "checkpoint.part", output / "checkpoint.pt")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", required=True, help="an output folder of vqbeam encode")
    parser.add_argument("--output", required=True, type=Path, help="a folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    args = parser.parse_args()
    train(args.tokens, args.output, args.steps, args.workers)
