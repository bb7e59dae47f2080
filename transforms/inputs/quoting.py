"""Whether quotation marks in a table of tabs enclose cells, as programs write them, or are text, as people do."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator

from transforms.inputs.request import Quoting

ENOUGH = 1000  # marks that are text: nothing outweighs them
OUTWEIGHED = 50  # a table without quoting may have one cell in so many that looks quoted
TAB = "\t"
QUOTE = '"'


class Marks:
    """What the quotation marks of one table are, learned from its lines (text, with their ends) in one pass.

    `text` counts records whose marks can only be text: one inside a cell that does not begin with one, one that is
    never closed, or one that would swallow whole rows. `quotes` counts records whose marks can only be quotes: doubled
    inside a quoted cell, or around a tab or a line break that is no end of a row. `unclear` counts records of one
    column with line breaks between marks.
    """

    def __init__(self) -> None:
        self.text = self.quotes = self.unclear = 0
        self._width = 0
        self._enclosed: Counter[int] = Counter()  # cells in marks for no visible reason, by column
        self._plain: Counter[int] = Counter()  # other cells of text
        self._enclosed_without_comma = self._plain_with_comma = False

    def look(self, lines: Iterable[str]) -> None:
        """Look at the lines of the table, from its header on, until what they say is clear."""
        rest = iter(lines)
        for line in rest:
            is_header, self._width = not self._width, self._width or line.count(TAB) + 1
            if QUOTE not in line:
                if not (is_header or self.text or self.quotes):
                    self._count_plain(line)
                continue
            self._look_at_record(line, rest)
            if self.text >= ENOUGH and self.text > OUTWEIGHED * self.quotes:
                return

    def verdict(self) -> Quoting | None:
        """None if there are no marks. Raises `ValueError` if they can be read both ways."""
        if self.text > OUTWEIGHED * self.quotes:
            return "none"
        if self.text:
            raise ValueError(f"{self.quotes:,} rows quote cells, in {self.text:,} the quotation marks are text")
        if self.quotes:
            return "csv"
        if self.unclear:
            raise ValueError("lines that begin and end with a quotation mark may be one cell or several rows")
        if not self._enclosed:
            return None
        whole_columns = all(not self._plain[column] for column in self._enclosed)
        by_commas = not self._enclosed_without_comma and not self._plain_with_comma
        return "csv" if whole_columns or by_commas else "none"

    def _look_at_record(self, first: str, rest: Iterator[str]) -> None:
        taken: list[str] = []

        def lines() -> Iterator[str]:
            taken.append(first)
            yield first
            for line in rest:
                taken.append(line)
                yield line

        try:
            cells = next(csv.reader(lines(), delimiter=TAB, strict=True), [])
        except csv.Error:
            cells = []
        whole_rows = all(line.count(TAB) + 1 == self._width for line in taken if line.strip("\r\n"))
        if len(cells) != self._width:
            self.text += whole_rows  # else it is broken either way
        elif len(taken) > 1:
            if self._width == 1:
                self.unclear += 1
            else:
                self.text += whole_rows
                self.quotes += not whole_rows
        else:
            self._look_at_cells(first.rstrip("\r\n"), cells)

    def _look_at_cells(self, line: str, cells: list[str]) -> None:
        """Look at a record that is one line."""
        start = 0
        text = quotes = False
        for column, cell in enumerate(cells):
            if line[start : start + 1] == QUOTE:
                doubled = cell.replace(QUOTE, QUOTE * 2)
                start += len(doubled) + 3
                if QUOTE in cell or TAB in cell:
                    quotes = True
                else:
                    self._enclosed[column] += 1
                    self._enclosed_without_comma |= "," not in cell
            else:
                start += len(cell) + 1
                text |= QUOTE in cell
                self._count_cell(column, cell)
        self.text += text
        self.quotes += quotes and not text

    def _count_plain(self, line: str) -> None:
        for column, cell in enumerate(line.rstrip("\r\n").split(TAB)):
            self._count_cell(column, cell)

    def _count_cell(self, column: int, cell: str) -> None:
        if cell and not cell.replace(".", "", 1).lstrip("-").isdigit():
            self._plain[column] += 1
            self._plain_with_comma |= "," in cell
