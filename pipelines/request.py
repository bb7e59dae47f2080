"""The typed options that all launching commands share, and what a command tells the planner and runner about its job.

Nothing here imports torch or Beam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models import find
from models.errors import ConfigError
from models.image_tokenizer import PixelRange, TokenizerCheckpoint, TokenizerOptions, TokenizerSpec
from pipelines import output_size
from pipelines.monitoring import Monitoring
from pipelines.planned_models import PlannedModel, anywhere
from transforms.errors import UsageError
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats.format import Inputs
from transforms.inputs.listing import find_inputs
from transforms.inputs.provenance import mismatch, token_provenance
from transforms.inputs.request import InputRequest, InputSchema
from transforms.ledger.plan import Plan, load_plan
from transforms.ledger.sums import Totals
from transforms.ledger.types import Shard
from transforms.outputs.contact_sheet import Kept, Originals
from transforms.outputs.layout import ImageOutput

if TYPE_CHECKING:
    from models.bart.config import DalleBartConfig
    from pipelines.accelerators import Gpu
    from transforms.work.step import ModelSettings
    from transforms.work.work import Work


@dataclass(frozen=True)
class Settings:
    """How the work is run. "auto" and 0 stand for settings that the user left open."""

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 0
    threads: int = 0
    workers: int = 0
    convolutions: str = "auto"

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
            convolutions=str(plan.choice("convolutions")),
        )


class InputFiles:
    """The files of an input request, listed when they are first needed, and once: a store takes minutes for millions.

    `listed` is None until then. `written` gives the files and folders of the job's own output, which may lie in the
    input and are none.
    """

    def __init__(self, request: InputRequest, written: Callable[[], Sequence[str]] = tuple) -> None:
        self.request = request
        self._written = written
        self.listed: Inputs | None = None

    def find(self) -> Inputs:
        """Raises `UsageError` if a pattern matches nothing or the format is unclear."""
        if self.listed is None:
            asked = self.request
            self.listed = find_inputs(asked.patterns, asked.input_format, asked.kind, self._written())
        return self.listed

    @cached_property
    def made_by(self) -> Mapping[str, Any] | None:
        """The provenance of the first file of tokens; None for tokens of another origin."""
        return token_provenance(self.find().files[0].uri)

    def model(self) -> str:
        """The name of the model that made the tokens. Raises `UsageError` if they do not say it."""
        if self.made_by is None:
            raise UsageError(
                f"{self.find().files[0].uri} does not say which model made its codes: name it with --model"
            )
        return str(self.made_by["model_source"])

    def check_codebook(self, expected: str) -> None:
        """Raises `UsageError` if the first file has tokens of another codebook than that with the id `expected`."""
        problem = mismatch(self.find().files[0].uri, self.made_by, expected)
        if problem:
            raise UsageError(problem)


@dataclass(frozen=True)
class JobOptions:
    """The options that every launching command has. `output` is absolute; `model_names` are the models that the user
    named. None stands for an option that was left open. Unless `kept`, `output` is a temporary folder. `local`: workers
    are processes of this machine; else one has `worker_cores`, and `worker_gpu`, None if it is not known, and
    `no_wait` leaves the job to itself. `config`: all flags as text for a file, if some came from one. `json` and
    `price_per_hour`, of a machine, are of `dry_run`."""

    files: InputFiles
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
    shard_timeout: float = 3600.0
    allow_other_versions: bool = False
    dry_run: bool = False
    contact_sheet: bool = False
    report: bool = False
    kept: bool = True
    local: bool = True
    worker_cores: int = 0
    worker_gpu: Gpu | None = None
    no_wait: bool = False
    json: bool = False
    price_per_hour: float | None = None
    config: str | None = None
    monitoring: Monitoring = field(default_factory=Monitoring)

    def check_names(self) -> None:
        """Checks that the local models and, for a new job, the input files exist, before imports take seconds.

        A job with a stored plan lists nothing. Raises `CheckpointError` and `UsageError`.
        """
        for name in self.model_names:
            if "://" not in name:
                find(name, self.model_cache)
        if self.files.request.patterns and (self.overwrite or load_plan(self.output) is None):
            self.files.find()


@dataclass(frozen=True)
class TokenizerChoice:
    """Which image tokenizer, and how it is opened. `model` is None for the one that made the tokens of the input."""

    model: str | None
    model_cache: str
    pixel_range: PixelRange | None = None
    backend: str = "torch"
    image_size: int | None = None
    weights: str | None = None
    tokenizer: str | None = None

    @property
    def options(self) -> TokenizerOptions:
        return TokenizerOptions(self.pixel_range, self.image_size, self.weights, tokenizer=self.tokenizer)

    def made(self, tokens: Mapping[str, Any] | None) -> TokenizerChoice:
        """For tokens of this provenance: what was said of the model that made them, and is left open here.

        Raises `CheckpointError`, and `ConfigError` if a class of somebody's made them: a table does not decide which
        code runs here.
        """
        said = tokens or {}
        own = said.get("tokenizer")
        if own and self.tokenizer is None and self.model == said["model_source"]:
            raise ConfigError(
                f"the class {own} made these tokens: name it by --tokenizer {own} if you trust it, since its code will "
                "run"
            )
        image_size = said.get("image_size") if self.image_size is None else self.image_size
        pixel_range = self.pixel_range
        if pixel_range is None and said.get("pixel_range_given"):  # else that of the checkpoint
            low, high = said["pixel_range"]
            pixel_range = low, high
        made = replace(self, pixel_range=pixel_range, image_size=image_size)
        if self.weights is not None or "weights" not in said:
            return made
        taken = replace(made, weights=said["weights"])
        try:
            taken.open()
        except ConfigError:  # another file, with one set of weights: whether the codes are its own, their codebook says
            return made
        return taken

    def open(self) -> TokenizerCheckpoint:
        """Find it; its weights are not read. Raises `CheckpointError` and `ConfigError`."""
        return find(str(self.model), self.model_cache, self.options).tokenizer

    def settings(self, settings: Settings) -> ModelSettings:
        """How workers run it, given settings without gaps."""
        from transforms.work.step import ModelSettings

        return ModelSettings(
            name=anywhere(str(self.model)),
            cache_dir=self.model_cache,
            backend=self.backend,
            device=settings.device,
            dtype=settings.dtype,
            batch_size=settings.batch_size,
            threads=settings.threads,
            options=self.options,
            convolutions=settings.convolutions,
        )


def check_decoder(name: str, spec: TokenizerSpec) -> None:
    """Raise `ConfigError` if a tokenizer gives codes and takes none."""
    if not spec.has_decoder:
        raise ConfigError(
            f"{name} ({spec.format}) holds an encoder only: it can encode, not decode. Name a checkpoint of the same "
            "model that has a decoder by --model"
        )


@dataclass(frozen=True)
class Task:
    """What a command has made of its options: all that planning and running need to know of it.

    `fingerprint` holds the command's own choices that decide the output (JSON values); `input` the input request with
    the columns that the command writes; `work` makes the work of the workers, given the stored plan and settings
    without gaps; `provenance` what every table says of its making. The first of `models` gives the job its name and the
    default size of a batch. `written` is how images are written; a command that makes none has in `look` what the
    summary says to look at, and in `kept` the image files that it writes as they came, if it does.

    `conclude` is called once the job is done and well, and returns what the summary ends with. It writes the file
    `concluded`, which is deleted while shards are pending. `quiet`: a job that is well has no summary printed.

    `originals` gives what images were made from, for the contact sheet, given the stored plan, settings without gaps
    and the shards.

    `planned` gives the schema and the shards of a new plan, for a job whose rows are not those of the input files; None
    has planning list and cut these.

    `open` has what a new plan takes for choices that the fingerprint leaves open (None), by their paths, such as
    "preprocessing.icc"; `Plan.choice` reads what a stored plan has.

    `tokenizer` is the one that codes in the input are for, None if it holds none. `drawn` describes the network that
    draws codes, if one does.

    A row of the input becomes `images_per_row` of what a batch counts; `pixels` is the size of each image that is
    written, `row_bytes` what one of them takes in the output, None if that is what it takes in the input.
    `fit_batch`: a default batch is no larger than the whole job needs, since a batch costs the same however full.
    """

    models: tuple[PlannedModel, ...]
    fingerprint: Mapping[str, Any]
    input: InputRequest
    work: Callable[[Plan, Settings], Work]
    provenance: Callable[[Plan], Mapping[str, Any]]
    written: ImageOutput | None = None
    kept: Kept | None = None
    look: str = ""
    backend: str = "torch"
    max_image_bytes: int = MAX_IMAGE_BYTES
    images_per_row: int = 1
    pixels: int = 0
    row_bytes: float | None = output_size.ROW
    tokenizer: TokenizerSpec | None = None
    drawn: DalleBartConfig | None = None
    fit_batch: bool = False
    open: Mapping[str, Any] = field(default_factory=dict)
    planned: Callable[[], tuple[InputSchema, Sequence[Shard]]] | None = None
    conclude: Callable[[Plan, Totals], str | None] | None = None
    concluded: str | None = None
    originals: Callable[[Plan, Settings, Sequence[Shard]], Originals] | None = None
    quiet: bool = False


def tokenizer_provenance(checkpoint: TokenizerCheckpoint, plan: Plan) -> dict[str, Any]:
    """The provenance in every table: enough to decode its codes, nothing that changes from run to run."""
    spec = checkpoint.spec
    identity = plan.fingerprint.get("vqgan", plan.fingerprint)  # the identity of the one model of a job lies flat in it
    return {
        "command": plan.command,
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
        **checkpoint.choices,
    }
