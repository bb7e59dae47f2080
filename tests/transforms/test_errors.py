"""Numbers of things and of bytes in words."""

from __future__ import annotations

from transforms.errors import amount, size_text


def test_one_thing_is_not_several() -> None:
    assert [amount(number, "new files") for number in (0, 1, 2000)] == ["0 new files", "1 new file", "2,000 new files"]


def test_a_small_run_has_a_size() -> None:
    assert [size_text(size) for size in (0, 1234, 99_999, 123_456, 5e9)] == [
        *("0.0 kB", "1.2 kB", "100.0 kB"),
        *("0.1 MB", "5,000.0 MB"),
    ]
