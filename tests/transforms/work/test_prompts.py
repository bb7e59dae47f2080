from __future__ import annotations

import numpy as np
import pytest

from models.bart.options import Drawing
from models.bart.text import open_text_encoder
from tests.support.tiny_generator import TINY_GENERATOR, TOKENIZER
from transforms.inputs.formats import read_slices
from transforms.inputs.request import InputSchema
from transforms.ledger.types import INLINE, Slice, Source
from transforms.work.prepare import Prepared
from transforms.work.prompts import CUT, prepare_prompts, slot_batches

DRAWING = {"images": 2, "seed": 5, "guidance_scale": 10.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}


def prepare(*prompts: str, drawing: Drawing = DRAWING) -> Prepared:
    source = Source("--prompt", INLINE, 0, "", rows=len(prompts))
    part = Slice(source, 0, len(prompts), texts=prompts)
    [batch] = read_slices([part], InputSchema("prompts", caption="prompt"))
    return prepare_prompts(batch, 7, open_text_encoder(TOKENIZER, TINY_GENERATOR), drawing)


def test_a_row_keeps_its_prompt_and_stands_for_its_images() -> None:
    prepared = prepare("a red apple", "", "a word " * 40)
    rows = prepared.columns.to_pylist()
    assert [(row["prompt"], row["row"], row["images"], row["seed"], row["top_k"]) for row in rows] == [
        ("a red apple", 7, 2, 5, 50),
        ("a word " * 40, 9, 2, 5, 50),
    ]
    assert prepared.rows_read == 6
    assert [(item.row, str(item.cause)[:12]) for item in prepared.refusals] == [(8, "empty_prompt")] * 2
    assert prepared.notices == {CUT: 1}
    assert [len(row["input_ids"]) for row in rows] == [TINY_GENERATOR.max_text_length] * 2


@pytest.mark.parametrize(("slots", "images", "sizes"), [(2, 3, [4, 2]), (4, 1, [4, 2]), (2, 1, [2, 2, 2])])
def test_slots_are_filled_in_order(slots: int, images: int, sizes: list[int]) -> None:
    batches = list(slot_batches([prepare("a", "b"), prepare("c")], slots, images))
    assert [batch.num_rows for batch in batches] == sizes
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["prompt"], row["sample"]) for row in rows] == [(name, n) for name in "abc" for n in range(2)]
    for batch in batches:
        taken = np.array(batch.column("slot"))
        assert taken[0] == 0
        assert taken.max() < slots
        assert np.bincount(taken).max() <= images


def test_a_prompt_of_many_images_takes_several_slots() -> None:
    drawing = {**DRAWING, "images": 5}
    [first, second] = slot_batches([prepare("a", drawing=drawing)], 2, 2)
    assert first.column("sample").to_pylist() == [0, 1, 2, 3]
    assert first.column("slot").to_pylist() == [0, 0, 1, 1]
    assert second.column("sample").to_pylist() == [4]
