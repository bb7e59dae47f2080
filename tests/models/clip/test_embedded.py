from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from models.clip.scorer import ClipScorer
from models.find import find
from tests.support.paths import SAMPLE

COUNT = 20


def test_the_embedded_clip_finds_the_captions_of_images_it_never_saw() -> None:
    clip = ClipScorer(find("emoji", "").clip, batch_size=COUNT)
    rows = pq.read_table(SAMPLE / "emoji.parquet", columns=["caption", "image", "split"]).slice(0, COUNT).to_pylist()
    assert {row["split"] for row in rows} == {"held_out"}
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    images = np.stack([clip.preprocess(image) for image in pixels])
    captions = [row["caption"] for row in rows]
    scores = np.stack([clip.scores(images, [caption] * COUNT) for caption in captions])
    assert (scores.argmax(0) == np.arange(COUNT)).mean() >= 0.95
    assert (scores.argmax(1) == np.arange(COUNT)).mean() >= 0.95


def test_the_embedded_clip_is_small() -> None:
    folder = find("emoji", "").clip.path
    assert 1e6 < sum(path.stat().st_size for path in folder.iterdir()) < 6e6


def test_transformers_reads_the_embedded_tokenizer_as_we_do() -> None:
    """Version 4 takes a text to begin without a space unless `tokenizer_config.json` says otherwise."""
    folder = find("emoji", "").clip.path
    texts = ["a red apple on blue", "dog", " Dog\n"]
    own = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    assert AutoTokenizer.from_pretrained(folder)(texts)["input_ids"] == [encoding.ids for encoding in own]
