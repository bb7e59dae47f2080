"""What the images of `vqbeam vary` were made from, for its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
from PIL import Image

from models.errors import ModelError
from transforms.batch import IMAGE, IMAGE_URI
from transforms.errors import RowRejected, ShardFailed
from transforms.images import decode_image
from transforms.inputs.again import read_again
from transforms.inputs.fetch import MAX_IMAGE_BYTES, fetch_image
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Shard
from transforms.work.prepare import prepare_codes
from transforms.work.step import in_batches
from transforms.work.vary import Vary

UNREADABLE = (ShardFailed, RowRejected, FileNotFoundError)  # a source that has changed, or is gone since


@dataclass(frozen=True)
class Originals:
    """The images that rows of a job showed to the model, or that their codes stand for, by shard and number of the row;
    None for those that cannot be read any more. Takes the job's work, schema and shards."""

    work: Vary
    schema: InputSchema
    shards: Sequence[Shard]
    max_bytes: int = MAX_IMAGE_BYTES

    def __call__(self, wanted: Sequence[tuple[int, int]]) -> list[Image.Image | None]:
        rows: dict[tuple[int, int], pa.RecordBatch] = {}
        for shard, found in groupby(sorted(wanted), key=itemgetter(0)):
            numbers = {row for _, row in found}
            try:
                for number, row in read_again(self.shards[shard].slices, numbers, self.schema, self.max_bytes):
                    rows[shard, number] = row
            except UNREADABLE:  # the sheet is there without them
                continue
        pixels = self._painted(rows) if self.schema.kind == "codes" else self._decoded(rows)
        return [Image.fromarray(pixels[place]) if place in pixels else None for place in wanted]

    def _decoded(self, rows: Mapping[tuple[int, int], pa.RecordBatch]) -> dict[tuple[int, int], np.ndarray]:
        pixels: dict[tuple[int, int], np.ndarray] = {}
        for place, row in rows.items():
            try:
                data = row.column(IMAGE)[0].as_py()
                if data is None:
                    data = fetch_image(row.column(IMAGE_URI)[0].as_py(), self.max_bytes)
                pixels[place] = decode_image(data, self.work.image).pixels
            except UNREADABLE:
                continue
        return pixels

    def _painted(self, rows: Mapping[tuple[int, int], pa.RecordBatch]) -> dict[tuple[int, int], np.ndarray]:
        codes = {place: prepare_codes(row, 0, self.work.spec).arrays for place, row in rows.items()}
        known = {place: arrays[0] for place, arrays in codes.items() if arrays}
        if not known:
            return {}
        try:
            tokenizer = self.work.model.open()
        except ModelError:  # the model is where the workers are
            return {}
        painted = in_batches(tokenizer.decode, np.stack([*known.values()]), tokenizer.batch_size)
        return dict(zip(known, painted, strict=True))
