"""What an export prints at its end: one account of the job that sorts and of those that write the splits."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.screen import counts_lines
from pipelines.terminal import say
from transforms import storage
from transforms.errors import amount, size_text
from transforms.ledger.folder import ERRORS
from transforms.ledger.sums import Totals
from transforms.ledger.totals import mark_uris, total_of


def print_export(output: str, sorted_rows: str, folders: Mapping[str, str], *, already: bool) -> None:
    """Print what `folders`, those of the splits, hold in all. `sorted_rows` is the folder of the job that sorts.
    `already`: an earlier run did it all."""
    first, written = total_of(sorted_rows), {name: total_of(folder) for name, folder in folders.items()}
    shards = {name: len(mark_uris(folder)) for name, folder in folders.items()}
    every = Totals()
    for one in (first, *written.values()):
        every.merge(one)
    every.rows_read, every.notices = first.rows_read, first.notices  # the splits read what it wrote
    every.rows_written -= first.rows_written
    every.missing_captions -= first.missing_captions
    lines = counts_lines("rows", every, unit="rows")
    if "" not in written:
        lines += [
            f"  {name:<10} {amount(one.rows_written, 'rows')} in {amount(shards[name], 'shards')}"
            for name, one in written.items()
        ]
    lines.append(f"  size       {size_text(sum(one.bytes for one in written.values()))} in {output}")
    if first.rows_rejected:
        lines.append(f"  look into  {storage.join(sorted_rows, ERRORS)}: one row for each that was rejected")
    lines.append(f"  look at    {output}")
    say(f"{'Done already' if already else 'Done'}: {amount(sum(shards.values()), 'shards')}", *lines)
