"""The names of everything in an output folder. No other module spells them."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.storage import join

SUCCESS = "_SUCCESS"  # there if the whole job is done and well
CONTACT_SHEET = "contact_sheet.png"
REPORT = "report.html"  # what came out, for people
EVALUATION = "evaluation.json"  # how good tokenizers are, in total
CARD = "README.md"  # the dataset card, or a file of the user's
IMAGES = "images"  # holds a folder of image files for each shard, in the layout `FILES`
CODES = "codes"  # holds a folder of files of codes for each shard of an export in the layout npy or memmap
FILE_FOLDERS = (IMAGES, CODES)
FILES_BELOW = tuple(f"{folder}/" for folder in FILE_FOLDERS)
INDEX = "index.json"  # of an export in a layout whose readers ask for one
FILES = "files"  # the layout with a file for each image, and their paths in the table
JOB = "_vqbeam"  # holds the accounts of the job that writes here
ERRORS = "_vqbeam/errors"  # holds tables of rejected rows
FILE_LISTS = "_vqbeam/files"  # holds a list of the files of images or codes of each shard that has some
STATS = "_vqbeam/stats"  # holds the marks of shards
DIGESTS = "_vqbeam/digests"  # holds what the marks of a thousand shards add up to, so that they are read once
ATTEMPTS = "_vqbeam/attempts"  # holds an empty file for each attempt at a shard that has not ended
RETRY = "_vqbeam/retry"  # holds a file for each shard that is to be done again
REDONE = "_vqbeam/redone"  # holds a folder for each of them: its new version, until that takes the place of the old
SORTED = "_vqbeam/sorted"  # holds the job of export that sorts, an output folder of its own
PLAN = "_vqbeam/plan.json"
LAST_RUN = "_vqbeam/last_run.json"
CONFIG = "_vqbeam/config.yaml"  # the flags of the last run that took some from a file


def is_inside(path: str) -> bool:
    """Whether a path that a mark or table lists stays inside the output folder."""
    return bool(path) and "\\" not in path and not {"", ".", ".."} & {*path.split("/")}


@dataclass(frozen=True)
class OutputFolder:
    """Names below `root`, a local folder or a URL. `shard` is `Shard.name`."""

    root: str

    def images(self, shard: str) -> str:
        return self.files(IMAGES, shard)

    def files(self, folder: str, shard: str) -> str:
        """The files of a shard in one of `FILE_FOLDERS`."""
        return join(self.root, folder, shard)

    def stats(self, shard: str) -> str:
        """The mark of a shard."""
        return join(self.root, STATS, f"{shard}.json")

    def errors(self, shard: str, content_hash: str) -> str:
        return f"{self.errors_prefix(shard)}{content_hash[:16]}.parquet"

    def errors_prefix(self, shard: str) -> str:
        """The prefix of every file of rejected rows, of any attempt at a shard."""
        return join(self.root, ERRORS, f"{shard}.")

    def file_list(self, shard: str, content_hash: str) -> str:
        return f"{self.file_lists_prefix(shard)}{content_hash[:16]}.jsonl"

    def file_lists_prefix(self, shard: str) -> str:
        """The prefix of every list of files, of any attempt at a shard."""
        return join(self.root, FILE_LISTS, f"{shard}.")

    def shards(self, segment: int) -> str:
        """The shards of a plan; each extension adds a segment."""
        name = "shards.parquet" if segment == 0 else f"shards-{segment:03d}.parquet"
        return join(self.root, "_vqbeam", name)

    def relative(self, uri: str) -> str:
        """The path of an object below `root`. Raises `ValueError` if it is elsewhere."""
        prefix = f"{self.root.rstrip('/')}/"
        if not uri.startswith(prefix):
            raise ValueError(f"{uri} is not in {self.root}")
        return uri[len(prefix) :]
