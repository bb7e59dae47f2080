"""What pyarrow's errors about a Parquet file mean, where its own words do not tell."""

from __future__ import annotations

MEANINGS = (
    (
        "Expected all lists to be of size",
        "a null in a column of fixed-size lists, which pyarrow writes to Parquet and cannot read back: "
        "write the column as plain lists, or without nulls",
    ),
)


def explained(error: BaseException) -> str:
    """The text of `error`, after its meaning if that is known."""
    text = str(error)
    return next((f"{meaning} ({text})" for sign, meaning in MEANINGS if sign in text), text)
