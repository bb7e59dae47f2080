"""Asserts that two trainers have the same state, to the bit."""

from __future__ import annotations

import torch


def assert_same(ours: object, theirs: object, name: str = "") -> None:
    """The same `state_dict()`: nested dictionaries and lists of tensors and plain values."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), name
        assert ours.keys() == theirs.keys(), name
        for key, value in theirs.items():
            assert_same(ours[key], value, f"{name}.{key}")
    elif isinstance(theirs, list):
        assert_same(dict(enumerate(ours)) if isinstance(ours, list) else ours, dict(enumerate(theirs)), name)
    elif isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor), name
        assert torch.equal(ours, theirs), name
    else:
        assert ours == theirs, name
