"""The typed options that all launching commands share, and what a command tells the planner and runner about its job.

Nothing here imports torch or Beam.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models import find
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats.format import Inputs
from transforms.inputs.listing import find_inputs
from transforms.inputs.request import InputRequest
from transforms.ledger.plan import Plan, load_plan

if TYPE_CHECKING:
    from models.image_tokenizer import TokenizerCheckpoint
    from pipelines.planned_models import PlannedModel
    from transforms.outputs.layout import ImageOutput
    from transforms.work.step import ModelSettings
    from transforms.work.work import Work

LEAST_ROWS = 256  # of a shard


@dataclass(frozen=True)
class Settings:
    """How the work is run. "auto" and 0 stand for settings that the user left open."""

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 0
    threads: int = 0
    workers: int = 0

    def over(self, plan: Plan) -> Settings:
        """The settings of this command line, else those that the stored plan resolved; only `workers` may stay open.

        The dtype is the plan's: it decides the output.
        """
        stored = plan.settings
        return Settings(
            device=self.device,
            dtype=str(plan.fingerprint["dtype"]),
            batch_size=self.batch_size or int(stored["batch_size"]),
            threads=self.threads or int(stored["threads_per_worker"]),
            workers=self.workers or int(stored["workers"] or 0),
        )


@dataclass(frozen=True)
class JobOptions:
    """The options that every launching command has. `output` is absolute; `model_names` are the models that the user
    named. None stands for an option that was left open."""

    input: InputRequest
    output: str
    settings: Settings
    model_cache: str
    model_names: tuple[str, ...] = ()
    limit: int | None = None
    rows_per_shard: int | None = None
    max_error_rate: float = 0.1
    temp_dir: str | None = None
    overwrite: bool = False
    extend: bool = False
    retry_rejected: bool = False
    dry_run: bool = False
    contact_sheet: bool = False


@dataclass(frozen=True)
class TokenizerChoice:
    """Which image tokenizer, and how it is opened. `model` is None for the one that made the tokens of the input."""

    model: str | None
    backend: str = "torch"
    pixel_range: tuple[float, float] | None = None

    def open(self, cache: str) -> TokenizerCheckpoint:
        """Find it; its weights are not read. Raises `CheckpointError` and `ConfigError`."""
        return find(str(self.model), cache, self.pixel_range).tokenizer

    def settings(self, cache: str, settings: Settings) -> ModelSettings:
        """How workers run it, given settings without gaps."""
        from pipelines.planned_models import anywhere
        from transforms.work.step import ModelSettings

        return ModelSettings(
            name=anywhere(str(self.model)),
            cache_dir=cache,
            backend=self.backend,
            device=settings.device,
            dtype=settings.dtype,
            batch_size=settings.batch_size,
            threads=settings.threads,
            pixel_range=self.pixel_range,
        )


@dataclass(frozen=True)
class Task:
    """What a command has made of its options: all that planning and running need to know of it.

    `fingerprint` holds the command's own choices that decide the output (JSON values); `input` the input request with
    the columns that the command writes; `work` makes the work of the workers, given the stored plan and settings
    without gaps; `provenance` what every table says of its making. The first of `models` gives the job its name and the
    default size of a batch. `inputs` are the files, if they are listed. `written` is how images are written; a command
    that writes none has in `look` what the summary says to look at.

    A row of the input becomes `images_per_row` of what a batch counts; `least_rows` is the smallest shard that planning
    chooses itself. `fit_batch`: a default batch is no larger than the whole job needs, since a batch costs the same
    however full.
    """

    models: tuple[PlannedModel, ...]
    fingerprint: Mapping[str, Any]
    input: InputRequest
    inputs: Inputs | None
    work: Callable[[Plan, Settings], Work]
    provenance: Callable[[Plan], Mapping[str, Any]]
    written: ImageOutput | None = None
    look: str = ""
    backend: str = "torch"
    max_image_bytes: int = MAX_IMAGE_BYTES
    images_per_row: int = 1
    least_rows: int = LEAST_ROWS
    fit_batch: bool = False


class InputFiles:
    """The files of an input request, listed when they are first needed, and once: a store takes minutes for millions.

    `listed` is None until then.
    """

    def __init__(self, request: InputRequest) -> None:
        self._request = request
        self.listed: Inputs | None = None

    def find(self) -> Inputs:
        """Raises `UsageError` if a pattern matches nothing or the format is unclear."""
        if self.listed is None:
            self.listed = find_inputs(self._request.patterns, self._request.input_format, self._request.kind)
        return self.listed


def check_names(job: JobOptions) -> InputFiles:
    """Checks at once, not after seconds of imports, that the local models and, for a new job, the input files exist.

    A job with a stored plan lists nothing. Raises `CheckpointError` and `UsageError`.
    """
    for name in job.model_names:
        if "://" not in name:
            find(name, job.model_cache)
    files = InputFiles(job.input)
    if job.input.patterns and (job.overwrite or load_plan(job.output) is None):
        files.find()
    return files


def tokenizer_provenance(command: str, checkpoint: TokenizerCheckpoint, plan: Plan) -> dict[str, Any]:
    """The provenance in every table: enough to decode its codes, nothing that changes from run to run."""
    spec = checkpoint.spec
    identity = plan.fingerprint.get("vqgan", plan.fingerprint)  # the identity of the one model of a job lies flat in it
    return {
        "command": command,
        "model": plan.settings["model"],
        "model_source": plan.settings["model_source"],
        "weights_id": identity["weights_id"],
        "codebook_id": checkpoint.codebook_id(),
        "resolution": spec.resolution,
        "grid": spec.grid,
        "codebook_size": spec.codebook_size,
        "pixel_range": list(spec.pixel_range),
        "dtype": plan.fingerprint["dtype"],
        "schema_version": plan.fingerprint["schema_version"],
    }


def vqbeam_version() -> str:
    try:
        return importlib.metadata.version("vqbeam")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
