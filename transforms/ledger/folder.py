"""The names of everything in an output folder. No other module spells them."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.storage import join

IMAGES = "images"  # holds a folder of image files for each shard
ERRORS = "_vqbeam/errors"  # holds tables of rejected rows


@dataclass(frozen=True)
class OutputFolder:
    """Names below `root`, a local folder or a URL. `shard` is `Shard.name`."""

    root: str

    def images(self, shard: str) -> str:
        return join(self.root, IMAGES, shard)

    def stats(self, shard: str) -> str:
        """The mark of a shard."""
        return join(self.stats_folder, f"{shard}.json")

    def errors(self, shard: str, content_hash: str) -> str:
        return f"{self.errors_prefix(shard)}{content_hash[:16]}.parquet"

    def errors_prefix(self, shard: str) -> str:
        """The prefix of every file of rejected rows, of any attempt at a shard."""
        return join(self.root, ERRORS, f"{shard}.")

    def shards(self, segment: int) -> str:
        """The shards of a plan; each extension adds a segment."""
        name = "shards.parquet" if segment == 0 else f"shards-{segment:03d}.parquet"
        return join(self.root, "_vqbeam", name)

    @property
    def stats_folder(self) -> str:
        return join(self.root, "_vqbeam", "stats")

    @property
    def plan(self) -> str:
        return join(self.root, "_vqbeam", "plan.json")

    @property
    def last_run(self) -> str:
        return join(self.root, "_vqbeam", "last_run.json")

    @property
    def success(self) -> str:
        return join(self.root, "_SUCCESS")

    @property
    def contact_sheet(self) -> str:
        return join(self.root, "contact_sheet.png")

    def relative(self, uri: str) -> str:
        """The path of an object below `root`. Raises `ValueError` if it is elsewhere."""
        prefix = f"{self.root.rstrip('/')}/"
        if not uri.startswith(prefix):
            raise ValueError(f"{uri} is not in {self.root}")
        return uri[len(prefix) :]
