"""One training step of the CLIP, and the state that a run is resumed from.

Everything random in a step is drawn from (seed, step), so a resumed run takes the same steps as one never stopped.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from examples.emoji.clip_batches import BatchMaker
from examples.emoji.clip_loss import contrastive_loss
from examples.emoji.clip_pairs import Pairs
from examples.emoji.clip_tokenizer import token_ids
from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.training_captions import training_caption, wordings_of

MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True)
class ClipRecipe:
    """The settings that decide the weights of a run. A batch has `spoilt` more images than captions."""

    steps: int
    batch_size: int = 256
    spoilt: int = 128
    spoilt_versions: int = 2  # of each image, in all
    seed: int = 0
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    ramp_steps: int = 100
    weight_decay: float = 0.05
    reconstruction_share: float = 0.7
    mixed_share: float = 0.45  # of the steps: in those after them, the glyphs of a batch share two backgrounds
    dtype: str = "bfloat16"  # of the products; "float32" is faster where the processor has no matrix unit

    @property
    def first_alike_step(self) -> int:
        return round(self.steps * self.mixed_share)

    def learning_rate_at(self, step: int) -> float:
        """Linear ramp, then half a cosine down to `final_learning_rate` at the last step."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        rate = self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine
        return rate * min(1.0, (step + 1) / max(1, self.ramp_steps))


@dataclass(frozen=True)
class Pool:
    """Decoded images: `reconstructions` uint8 [N, H, W, 3] of every pair; `spoilt` [V * trained, H, W, 3], V versions
    of the training pairs in order, with `kept` float32 [V * trained]."""

    reconstructions: np.ndarray
    spoilt: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class ClipBatch:
    """`pixels` float32 [N + M, 3, H, W], `input_ids` int64 [N, L] and the arguments of `contrastive_loss`."""

    pixels: Tensor
    input_ids: Tensor
    thing: Tensor
    background: Tensor
    names_background: Tensor
    kept: Tensor


class ClipTrainer:
    """The network and its optimiser, at one step of a recipe. `clear`: see `training_captions.clear_pairs`."""

    def __init__(
        self,
        config: CLIPConfig,
        recipe: ClipRecipe,
        pairs: Pairs,
        pool: Pool,
        tokenizer: Tokenizer,
        clear: frozenset[tuple[str, str]],
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.config, self.recipe, self.pairs, self.pool, self.tokenizer = config, recipe, pairs, pool, tokenizer
        self.clear, self.wordings = clear, wordings_of(pairs.things)
        self.maker = BatchMaker(pairs)
        self.trained = np.flatnonzero(pairs.train)
        self.model = CLIPModel(config).train()
        self.model.set_attn_implementation("eager")  # torch's fused attention has a slow backward pass on CPUs
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0

    def batch(self, step: int) -> ClipBatch:
        """The captions and images of a step: originals and reconstructions, then spoilt versions of the first."""
        recipe, pairs = self.recipe, self.pairs
        rng = np.random.default_rng([recipe.seed, step])
        rows = self.maker.rows_of(rng, recipe.batch_size, alike=step >= recipe.first_alike_step)
        decoded = rng.random(len(rows)) < recipe.reconstruction_share
        clean = np.where(decoded[:, None, None, None], self.pool.reconstructions[rows], pairs.originals[rows])
        version = rng.integers(0, recipe.spoilt_versions, recipe.spoilt)
        bad = version * len(self.trained) + np.searchsorted(self.trained, rows[: recipe.spoilt])
        names = list(BACKGROUNDS)
        captions, names_background = [], []
        for row in rows:
            thing, background = pairs.things[pairs.thing[row]], names[pairs.background[row]]
            clear = (thing, background) in self.clear
            caption, named = training_caption(thing, background, rng, self.wordings, clear=clear)
            captions.append(caption)
            names_background.append(named)
        return ClipBatch(
            pixels=to_pixels(np.concatenate([clean, self.pool.spoilt[bad]])),
            input_ids=torch.from_numpy(
                token_ids(self.tokenizer, captions, self.config.text_config.max_position_embeddings)
            ),
            thing=torch.from_numpy(pairs.thing[rows]),
            background=torch.from_numpy(pairs.background[rows]),
            names_background=torch.tensor(names_background),
            kept=torch.from_numpy(self.pool.kept[bad]),
        )

    def advance(self) -> dict[str, float]:
        """Takes one step; returns the values to log."""
        batch = self.batch(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.dtype == "bfloat16"):
            images = self.model.visual_projection(self.model.vision_model(batch.pixels).pooler_output)
            captions = self.model.text_projection(self.model.text_model(batch.input_ids).pooler_output)
        cosines = F.normalize(captions.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T
        logits = self.model.logit_scale.exp() * cosines
        to_images, to_captions = contrastive_loss(
            logits, batch.thing, batch.background, batch.names_background, batch.kept
        )
        (0.5 * (to_images + to_captions)).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        self.step += 1
        return {
            "to_pictures": float(to_images.detach()),
            "to_captions": float(to_captions.detach()),
            "norm": float(norm),
            "scale": float(self.model.logit_scale.detach().exp()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from `state_dict()`. The recipe is this trainer's own, so that a schedule can be cut short."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def to_pixels(rgb: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1], as `preprocessor_config.json` says."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
