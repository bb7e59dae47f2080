"""DALL·E BART's decoder as machine code for a CPU, compiled by numba; `models/bart/compiled/decoder.py` is the way in.

A token step takes as long as reading weights and caches once. Libraries leave a third to a half of the memory's speed
unused; here each thread prefetches what it reads next.
"""

LANES = 16  # float32 values in the widest register
TURN = 2 * LANES  # weights that are read at a time: inner sizes are multiples of it
