from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.evaluate_clip import retrieval
from tests.examples.synthetic_pairs import synthetic_pairs

PAIRS = synthetic_pairs()
HELD_OUT = np.flatnonzero(~PAIRS.train)
THINGS, COLOURS = torch.eye(6), torch.eye(len(BACKGROUNDS))


def vectors(thing: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """What a perfect CLIP would give: half of it says the thing, half the background."""
    return F.normalize(torch.cat([THINGS[thing], COLOURS[background]], dim=-1), dim=-1)


CAPTIONS = torch.stack([vectors(torch.arange(6), torch.full((6,), b)) for b in range(len(BACKGROUNDS))])


def measured(thing: np.ndarray, background: np.ndarray) -> dict[str, float]:
    return retrieval(PAIRS, vectors(torch.from_numpy(thing), torch.from_numpy(background)), CAPTIONS, HELD_OUT)


def test_a_perfect_clip_finds_everything() -> None:
    figures = measured(PAIRS.thing, PAIRS.background)
    assert figures.pop("pairs") == len(HELD_OUT) == 12
    assert set(figures.values()) == {1.0}


def test_a_clip_that_takes_every_thing_for_the_next_finds_only_backgrounds() -> None:
    figures = measured((PAIRS.thing + 1) % 6, PAIRS.background)
    assert figures["right_background_of_all"] == 1.0
    assert figures["right_name_of_all"] == 0.0
    assert figures["right_picture_of_all_on_the_background"] == 0.0
    assert figures["right_name_in_first_five"] == 1.0  # the other five score alike


def test_a_clip_that_is_blind_to_background_finds_only_things() -> None:
    figures = measured(PAIRS.thing, (PAIRS.background + 1) % len(BACKGROUNDS))
    assert figures["right_background_of_all"] == 0.0
    assert figures["right_name_of_all"] == 1.0
