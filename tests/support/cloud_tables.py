"""Three tables of two rows each, for jobs whose data lies in a bucket."""

from __future__ import annotations

from tests.support.make_inputs import GOOD, image_table

TABLES = {f"{name}.parquet": image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]) for name in "abc"}
KEYS = ["a0", "a1", "b0", "b1", "c0", "c1"]
TWO_ROWS = ("--rows_per_shard", "2")
