"""Nulls for some of the values, in slices too."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from transforms.inputs.cells import null_where, without_bad_text

TEXTS = ["a red apple", "b", None, "", "rocket", "c"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize(("start", "stop"), [(0, 6), (1, 5), (3, 6), (2, 2)])
def test_a_slice_of_strings_gets_nulls(kind: pa.DataType, start: int, stop: int) -> None:
    column = pa.array(TEXTS, kind)[start:stop]
    emptied = null_where(pc.equal(column, ""), column)
    emptied.validate(full=True)
    assert emptied.type == kind
    assert emptied.to_pylist() == [text or None for text in TEXTS[start:stop]]


def test_bad_text_in_a_slice_leaves_the_other_rows_as_they_are() -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 4, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xffcd")]
    )
    batch = pa.RecordBatch.from_arrays([bad, pa.array([["w"], ["x"], None, ["z"]])], ["text", "list"])[1:]
    cleaned, bad_rows = without_bad_text(batch)
    cleaned.validate(full=True)
    assert cleaned.to_pydict() == {"text": [None, "c", "d"], "list": [["x"], None, ["z"]]}
    assert bad_rows == {0: "text"}
