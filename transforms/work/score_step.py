"""Pictures and their captions to CLIP scores: from bytes to what a CLIP sees, and the model step of `vqbeam rank`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa

from models import find
from models.clip.pixels import ClipPixels
from models.clip.scorer import ClipScorer, open_clip
from transforms.batch import CLIP_PIXELS, CLIP_SCORE, LONGEST_CAPTION, first_caption, to_rows
from transforms.errors import RowRejected
from transforms.images import DecodedImage, ImageLimits, decode_whole


@dataclass(frozen=True)
class ClipSettings:
    """Which CLIP, and how it is run; every value is resolved. `threads` are torch's intra-op threads."""

    name: str
    cache_dir: str
    device: str
    batch_size: int
    threads: int

    def open(self) -> ClipScorer:
        """Find the weights by `name`, and load them."""
        checkpoint = find(self.name, self.cache_dir).clip
        return open_clip(checkpoint, device=self.device, batch_size=self.batch_size, threads=self.threads or None)


@dataclass
class ScoreStep:
    """`clip_pixels` and `caption` -> `clip_score` float32: the cosine of picture and caption."""

    clip: ClipSettings
    scorer: ClipScorer | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        return self.clip.batch_size

    def setup(self) -> None:
        self.scorer = self.scorer or self.clip.open()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.scorer is None:
            raise RuntimeError("a step is called before its setup()")
        rows = to_rows(batch.column(CLIP_PIXELS))
        side = round((rows.shape[1] // 3) ** 0.5)
        captions = [first_caption(caption)[:LONGEST_CAPTION] for caption in batch.column("caption").to_pylist()]
        scores = self.scorer.scores(rows.reshape(-1, 3, side, side), captions)
        return batch.drop_columns([CLIP_PIXELS]).append_column(CLIP_SCORE, pa.array(scores, pa.float32()))


def decode_for_clip(data: bytes, limits: ImageLimits, preprocess: ClipPixels) -> DecodedImage:
    """Bytes of a picture -> what the CLIP sees of it, float32 [3, H, W], with the original sizes.

    JPEGs are decoded in full. Raises as `decode_image` does, and `RowRejected` ("too_many_pixels") for a strip so
    narrow that it would not fit into memory once its short side has the model's size.
    """
    picture = decode_whole(data, limits)
    width, height = preprocess.resized(picture.original_width, picture.original_height)
    if width * height > limits.max_image_pixels:
        raise RowRejected(
            "too_many_pixels",
            f"{picture.original_width} x {picture.original_height} pixels, which for the CLIP become "
            f"{width} x {height}; --max_image_pixels allows {limits.max_image_pixels:,}",
        )
    return replace(picture, pixels=preprocess(picture.pixels))
