"""`ScoreImages` in a user's pipeline, on a CLIP of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.images import encoded, scene
from tests.support.run_transform import outcome
from tests.support.tiny_clip import open_clip
from transforms import ScoreImages
from transforms.errors import UsageError
from transforms.inference.images import caption_of, packed_pairs

CAPTIONS = ("a red apple", "a blue rocket", "rocket on a red background")


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"key": str(i), "caption": CAPTIONS[i % 3], "image": encoded(scene(20 + i, 24), "PNG"), "n": i}
        for i in range(count)
    ]


def score(clip: Path, **options: Any) -> ScoreImages:
    return ScoreImages(str(clip), batch_size=4, device="cpu", threads=1, **options)


def test_rows_gain_the_score_of_their_pair_and_keep_all_else(tiny_clip: Path) -> None:
    rows, rejected = outcome(score(tiny_clip), pairs(6))
    scorer = open_clip(tiny_clip, batch_size=4, threads=1)
    images = [scorer.preprocess(np.asarray(scene(20 + i, 24))) for i in range(6)]
    expected = scorer.scores(np.stack(images), [CAPTIONS[i % 3] for i in range(6)])
    assert [row.pop("clip_score") for row in rows] == expected.tolist()
    assert rows == pairs(6)
    assert rejected == []


def test_columns_of_other_names_lists_of_captions_and_datasets_own_images_are_taken(tiny_clip: Path) -> None:
    plain = pairs(2)
    named = [
        {"key": row["key"], "texts": ["", None, row["caption"]], "photo": {"bytes": row["image"], "path": None}}
        for row in plain
    ]
    rows, _ = outcome(score(tiny_clip, image_column="photo", caption_column="texts"), named)
    expected, _ = outcome(score(tiny_clip), plain)
    assert [row["clip_score"] for row in rows] == [row["clip_score"] for row in expected]


def test_each_bad_pair_is_rejected_alone(tiny_clip: Path) -> None:
    good = pairs(1)
    bad = [
        ({"caption": "a", "image": b""}, "empty_image"),
        ({"caption": "a", "image": b"<html>"}, "not_an_image"),
        ({"caption": "a"}, "missing_image"),
        ({"caption": " ", "image": good[0]["image"]}, "missing_caption"),
        ({"caption": [None], "image": good[0]["image"]}, "missing_caption"),
        ({"image": good[0]["image"]}, "missing_caption"),
    ]
    rows, rejected = outcome(score(tiny_clip), [*good, *(row for row, _ in bad)])
    assert [row["key"] for row in rows] == ["0"]
    assert [(letter["row"], letter["error"]) for letter in rejected] == bad


def test_half_a_surrogate_pair_in_a_caption_is_scored_as_a_question_mark() -> None:
    batch = packed_pairs("text", [({"text": "a \ud800"}, np.zeros(3, np.float32))])
    assert batch.column("caption").to_pylist() == ["a ?"]


@pytest.mark.parametrize("cell", [3, {"a": "b"}, [1, 2], b"a"])
def test_a_caption_column_without_text_is_the_users_mistake(cell: object) -> None:
    with pytest.raises(UsageError, match="name another with caption_column="):
        caption_of({"caption": cell}, "caption")


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_image_bytes": 0}])
def test_meaningless_options_are_refused_when_the_pipeline_is_built(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ScoreImages("emoji", **options)
