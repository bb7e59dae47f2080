"""The largest sizes that a model's configuration may ask for: a wrong number must not fill the memory."""

from __future__ import annotations

MOST_BLOCKS = 1 << 8  # of each level of a VQGAN; and how many times its first width a level may be wide
MOST_LAYERS = 1 << 10
MOST = 1 << 24  # of all else
