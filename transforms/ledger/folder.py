"""Where everything lies in an output folder: the one place that knows the names."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.storage import join


@dataclass(frozen=True)
class Layout:
    """Names below `root`, a local folder or a URL. `shard` is `Shard.name`."""

    root: str

    def data(self, shard: str) -> str:
        return join(self.root, "data", f"{shard}.parquet")

    def images(self, shard: str) -> str:
        return join(self.root, "images", shard)

    def tar(self, shard: str) -> str:
        return join(self.root, "tars", f"{shard}.tar")

    def stats(self, shard: str) -> str:
        return join(self.stats_folder, f"{shard}.json")

    def errors(self, shard: str, content_hash: str) -> str:
        return f"{self.errors_prefix(shard)}{content_hash[:16]}.parquet"

    def errors_prefix(self, shard: str) -> str:
        """What the files of rejected rows of all attempts at a shard begin with."""
        return join(self.errors_folder, f"{shard}.")

    def shards(self, segment: int) -> str:
        """The shards of a plan; each `--extend` adds a segment."""
        name = "shards.parquet" if segment == 0 else f"shards-{segment:03d}.parquet"
        return join(self.root, "_vqbeam", name)

    @property
    def stats_folder(self) -> str:
        return join(self.root, "_vqbeam", "stats")

    @property
    def errors_folder(self) -> str:
        return join(self.root, "_vqbeam", "errors")

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
        """The path of an object below `root`. Raises `ValueError` where it is elsewhere."""
        prefix = f"{self.root.rstrip('/')}/"
        if not uri.startswith(prefix):
            raise ValueError(f"{uri} is not in {self.root}")
        return uri[len(prefix) :]
