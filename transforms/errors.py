"""The errors of a row, a shard and a run, and how messages write amounts.

The short codes are those of `_vqbeam/errors/` and `docs/errors.md`.
"""

from __future__ import annotations

MAX_MESSAGE = 500  # characters, of the message of a row
MAX_NAME = 80  # characters of a name or value that a message shows

ROW_ERRORS: dict[str, str] = {
    "missing_image": "the cell is null, or the sample has no image member",
    "empty_image": "the image has zero bytes",
    "image_too_large": "more bytes than max_image_bytes",
    "too_many_pixels": "more pixels than max_image_pixels",
    "not_an_image": "the bytes are no image format that vqbeam reads",
    "broken_image": "the image is cut short or corrupt",
    "wrong_size": "the image is not the model's size, and resize is none",
    "image_not_found": "the path or URI in the row leads to nothing",
    "uri_not_allowed": "the URI's scheme is not in uri_schemes, or a relative path leaves its dataset",
    "fetch_refused": "the web server answered the URI in the row with a 4xx status",
    "fetch_failed": "the web server or store of the URI in the row, which is not the dataset's own, failed every time",
    "missing_caption": "no caption where one is needed: by require_caption, or to be scored or drawn",
    "broken_archive": "the tar breaks off or is corrupt from here on",
    "broken_record": "a line of a text table cannot be parsed, or metadata of a sample is not valid JSON",
    "schema_mismatch": "a value does not fit the type that the plan fixed for its column",
    "missing_codes": "the codes of the row are null",
    "wrong_code_count": "the row holds more or fewer codes than the grid has",
    "code_out_of_range": "a code is negative, or not smaller than the codebook",
    "empty_prompt": "there is no prompt, or normalising removes all of it",
    "prompt_too_long": "more bytes than a prompt may have",
    "bad_value": "a seed, number of images or drawing option that cannot be used",
}


class RowRejected(Exception):
    """The data of one row is bad: `code` is a key of `ROW_ERRORS`, `message` says what was found."""

    def __init__(self, code: str, message: str) -> None:
        if code not in ROW_ERRORS:
            raise ValueError(f"unknown row error code {code!r}")
        message = shortened(message)
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RowFiltered(Exception):
    """A filter that the user set leaves this row out; `reason` names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ShardFailed(Exception):
    """A shard cannot be finished: no row is rejected, nothing is kept, and the next run does it again.

    `advised`: the message says what to do, and the same command again would not help.
    """

    advised = False


class StorageFailed(ShardFailed):
    """A store, a disk or the network failed: access denied, a server error after all retries, a full disk."""


class SourceChanged(ShardFailed):
    """A source is no longer the one that was planned."""

    advised = True


class OutputDamaged(ShardFailed):
    """A stored plan, table or tar is damaged, or lacks an object that it names."""

    advised = True


class TooManyRejected(ShardFailed):
    """More rows were rejected than the user tolerates."""


class WrongCodebook(ShardFailed):
    """Tokens were encoded with another codebook than the model's."""

    advised = True


class WorkerUnfit(ShardFailed):
    """The worker cannot do any shard: its disk is full, its device or its model cannot be used."""


class RetryRefused(ShardFailed):
    """A shard that is done again would lose rows that it has."""

    advised = True


class RunFailed(Exception):
    """The run as a whole cannot go on: a worker process crashed, or its end could not be written."""


class WorkerLost(RunFailed):
    """A worker process ended abruptly; the shards that others were at are done."""


class UsageError(Exception):
    """The request cannot be done as asked; the message says what to do. Exit code 2.

    `option` is the option at fault by its plain name ("image_column"), with which the text begins: a command line makes
    it a flag.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(f"{option}: {message}" if option else message)
        self.option = option


class Stopped(Exception):
    """The run was asked to stop: the shard in flight is dropped without a trace."""


def shortened(text: str, most: int = MAX_MESSAGE) -> str:
    """`text`, without its middle if it is longer than `most`: a message shows cells of data, which may be images."""
    if len(text) <= most:
        return text
    left = len(text) - most
    return f"{text[: most // 2]} [... {left:,} characters ...] {text[len(text) - most // 2 :]}"


def brief(name: str) -> str:
    """A name or value from the data, for messages."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


def amount(number: int, things: str) -> str:
    """ "1 image" and "2,000 images" for `things` "images"."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def size_text(size: float) -> str:
    """Bytes in kB below a tenth of a MB, else in MB."""
    return f"{size / 1e3:,.1f} kB" if size < 1e5 else f"{size / 1e6:,.1f} MB"
