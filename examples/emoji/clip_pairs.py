"""The CLIP's training data: the captioned images as built, and the codes that `vqbeam encode` wrote for them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.emoji.caption_variety import subject
from examples.emoji.combinations import BACKGROUNDS


@dataclass(frozen=True)
class Pairs:
    """N captioned images in the order of the data set.

    `originals` uint8 [N, 64, 64, 3], `codes` int64 [N, T]; `thing` and `background` int64 [N] index `things` ("a
    rocket") and `BACKGROUNDS`; `train` bool [N]. Glyphs of one name are one thing.
    """

    originals: np.ndarray
    codes: np.ndarray
    thing: np.ndarray
    background: np.ndarray
    train: np.ndarray
    things: list[str]


def decode_image(data: bytes) -> np.ndarray:
    """A PNG file -> uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def read_pairs(images: Path, tokens: Path) -> Pairs:
    """Joins the Parquet folder of `build_dataset` with the `data` folder of `vqbeam encode` by key.

    Raises `ValueError` if an image has no codes.
    """
    rows = pq.read_table(images, columns=["key", "caption", "image", "background", "split"]).to_pylist()
    encoded = pq.read_table(tokens, columns=["key", "encoding"])
    values = encoded["encoding"].combine_chunks()
    width = len(values[0])
    codes = pa.array(values).flatten().to_numpy(zero_copy_only=False).reshape(-1, width).astype(np.int64)
    position = {key: n for n, key in enumerate(encoded["key"].to_pylist())}
    missing = [row["key"] for row in rows if row["key"] not in position]
    if missing:
        raise ValueError(f"{tokens}: no codes for {len(missing)} images of {images}, such as {missing[0]}")
    names = list(BACKGROUNDS)
    subjects = [subject(row["caption"], row["background"]) for row in rows]
    things = list(dict.fromkeys(subjects))
    number = {name: n for n, name in enumerate(things)}
    return Pairs(
        originals=np.stack([decode_image(row["image"]["bytes"]) for row in rows]),
        codes=codes[[position[row["key"]] for row in rows]],
        thing=np.array([number[name] for name in subjects]),
        background=np.array([names.index(row["background"]) for row in rows]),
        train=np.array([row["split"] == "train" for row in rows]),
        things=things,
    )
