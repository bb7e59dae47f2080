"""One training step of the embedded DALL·E BART, and the state that a run is resumed from.

Matrices are trained with Muon (Jordan et al., 2024), embeddings, norms and `lm_head` with AdamW. Everything random in
a step is drawn from (seed, step), so a resumed run takes the same steps as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.emoji.training_captions import training_caption, wordings_of
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart

BLANK = (0, 2)  # what a blank caption becomes: the unconditional input of guidance
PAD = 1
Encode = Callable[[str], list[int]]  # a caption to pieces, the special ones included


@dataclass(frozen=True)
class BartRecipe:
    """The settings that decide the weights of a run. Learning rates are constant after a ramp and fall linearly to
    zero over the last `decay_share` of `steps`, so that a run can be made longer from any checkpoint before.

    Of the codes that the decoder is fed, each image has a share spoilt, up to `most_spoilt`: codes of other images
    replace them. Otherwise it learns to follow the codes before rather than the caption, and an image that
    is being drawn strays further with each code that the training set does not have.
    """

    steps: int
    batch_size: int = 64
    seed: int = 0
    matrix_rate: float = 4e-3
    other_rate: float = 3e-3
    ramp_steps: int = 100
    decay_share: float = 0.3
    weight_decay: float = 0.01
    blank_share: float = 0.1
    most_spoilt: float = 0.3
    average_decay: float = 0.995
    text_only: bool = False  # train the encoder and what reads it; the rest of the decoder keeps its weights
    dtype: str = "bfloat16"  # of the products; "float32" is faster where the processor has no matrix unit

    def rate_at(self, step: int) -> float:
        """Factor on the learning rates."""
        ramp = min(1.0, (step + 1) / max(1, self.ramp_steps))
        return ramp * min(1.0, max(0.0, (self.steps - step) / max(1.0, self.decay_share * self.steps)))


@dataclass(frozen=True)
class TokenSet:
    """Images as codes int64 [N, T], the things on them ("a rocket"), their backgrounds ("blue"), and whether the thing
    can be seen clearly on it."""

    codes: Tensor
    things: list[str]
    backgrounds: list[str]
    clear: list[bool]


def initialise(model: DalleBart) -> None:
    """Normal weights of deviation 0.02 in the tables, orthogonal-like scale in the matrices."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    nn.init.normal_(model.decoder.lm_head.weight, std=0.02)


class BartTrainer:
    """The network, its optimisers and the averaged weights, at one step of a recipe."""

    def __init__(
        self, config: DalleBartConfig, recipe: BartRecipe, tokens: TokenSet, encode: Encode, *, compiled: bool = True
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.config, self.recipe, self.tokens, self.encode = config, recipe, tokens, encode
        self.wordings = wordings_of(tokens.things)
        self.model = DalleBart(config)
        self.whole = WithLoss(self.model)
        initialise(self.model)
        self.averaged = DalleBart(config).requires_grad_(False).eval()
        self.averaged.load_state_dict(self.model.state_dict())
        if recipe.text_only:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(is_of_text(name))
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trained if is_matrix(name, p)]
        others = [p for name, p in trained if not is_matrix(name, p)]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.base_rates = [recipe.matrix_rate, recipe.other_rate]
        self.step = 0
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Takes trained weights, float32, in place of fresh ones."""
        self.model.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pieces int64 [N, L], mask [N, L], codes to be fed and codes to be predicted, int64 [N, T], of a step."""
        rng = np.random.default_rng([self.recipe.seed, step])
        rows = rng.integers(0, len(self.tokens.things), self.recipe.batch_size)
        texts = [list(BLANK) if rng.random() < self.recipe.blank_share else self.caption(row, rng) for row in rows]
        input_ids, mask = padded(texts, self.config.max_text_length)
        codes = self.tokens.codes[torch.from_numpy(rows)]
        return input_ids, mask, self.spoilt(codes, rng), codes

    def caption(self, row: int, rng: np.random.Generator) -> list[int]:
        """The pieces of one caption of an image that the text encoder has room for."""
        tokens = self.tokens
        while True:
            text, _ = training_caption(
                tokens.things[row], tokens.backgrounds[row], rng, self.wordings, clear=tokens.clear[row]
            )
            pieces = self.encode(text)
            if len(pieces) <= self.config.max_text_length:
                return pieces

    def spoilt(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Codes int64 [N, T] with a share of each row, up to `most_spoilt`, exchanged for codes of other images."""
        chosen = rng.random(codes.shape) < rng.random((len(codes), 1)) * self.recipe.most_spoilt
        others = self.tokens.codes.flatten()[torch.from_numpy(rng.integers(0, self.tokens.codes.numel(), codes.shape))]
        return torch.where(torch.from_numpy(chosen), others, codes)

    def _loss(self, input_ids: Tensor, mask: Tensor, fed: Tensor, codes: Tensor) -> Tensor:
        """The loss of the weights, or of a bfloat16 copy of them; gradients arrive at the float32 ones.

        Not autocast: on a CPU its layer norms with a bias and no scale fail in the backward pass (torch 2.13).
        """
        if self.recipe.dtype == "float32":
            return self.whole(input_ids, mask, fed, codes)
        copies = {f"model.{name}": p.to(torch.bfloat16) for name, p in self.model.named_parameters()}
        return torch.func.functional_call(self.whole, copies, (input_ids, mask, fed, codes))

    def advance(self) -> dict[str, float]:
        """Takes one step; returns the values to log."""
        loss = self.loss(*self.batch(self.step))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = self.recipe.rate_at(self.step)
        for optimiser, rate in zip(self.optimisers, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.recipe.average_decay, self.step / (self.step + 10))
        mine = [p.data for p in self.averaged.parameters()]
        torch._foreach_lerp_(mine, [p.data for p in self.model.parameters()], 1 - decay)
        return {"loss": float(loss.detach()), "norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from `state_dict()`. The recipe is this trainer's own, so that a schedule can be made longer."""
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        self.step = state["step"]


class WithLoss(nn.Module):
    """The network with its loss as one call."""

    def __init__(self, model: DalleBart) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, mask: Tensor, fed: Tensor, codes: Tensor) -> Tensor:
        return code_loss(self.model, input_ids, mask, fed, codes)


def is_of_text(name: str) -> bool:
    """Whether a parameter is the encoder's, or one by which the decoder reads what the encoder gives."""
    return name.startswith("encoder.") or "encoder_attn" in name


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it: the dense layers inside the blocks."""
    return parameter.ndim == 2 and ".layers." in name


def padded(texts: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
    """Lists of pieces -> int64 [N, length] padded with 1, and the mask. Raises `ValueError` for longer lists."""
    if max(map(len, texts)) > length:
        raise ValueError(f"a caption has {max(map(len, texts))} pieces, the model takes {length}")
    input_ids = torch.full((len(texts), length), PAD)
    mask = torch.zeros((len(texts), length), dtype=torch.long)
    for i, text in enumerate(texts):
        input_ids[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
    return input_ids, mask


def code_loss(model: DalleBart, input_ids: Tensor, mask: Tensor, fed: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy of `codes`, int64 [N, T], where the decoder is fed `fed`, in nats a code."""
    start = torch.full_like(codes[:, :1], model.config.decoder_start_token_id)
    states = model.encode(input_ids, mask)
    logits = model.logits(torch.cat([start, fed[:, :-1]], 1), states, mask)
    return F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
