"""`vqbeam generate`: prompts -> images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import find
from models.bart.options import SAMPLING, Drawing, read_generation_defaults
from pipelines import flags
from pipelines.command import JobCommand
from pipelines.request import InputFiles, JobOptions, Settings, Task, tokenizer_provenance
from transforms.errors import UsageError
from transforms.inputs.request import InputSchema
from transforms.ledger.plan import Plan
from transforms.outputs.layout import ImageOutput

if TYPE_CHECKING:
    from models.bart.checkpoint import BartCheckpoint
    from models.clip.pixels import ClipPixels
    from models.image_tokenizer import TokenizerCheckpoint
    from pipelines.planned_models import PlannedModel
    from transforms.work.generate import GeneratorSettings
    from transforms.work.work import Work


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "prompts")
    flags.add_output_flags(parser)
    group = parser.add_argument_group("models")
    group.add_argument(
        "--model", default="emoji", metavar="NAME", help=f"the DALL·E BART: {flags.MODEL_NAMES} (default emoji)"
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN that paints; default: in --model's folder")
    group.add_argument(
        "--clip",
        metavar="NAME",
        help="a CLIP that scores and ranks the images of each prompt; emoji is built in",
    )
    flags.add_device_flags(group, draws=True)
    flags.add_checkpoint_flags(group)
    group = parser.add_argument_group("drawing; columns of the input may set each of the last six for a row")
    group.add_argument(
        "--keep_best", type=flags.positive, metavar="K", help="keep the K best images of each prompt, by --clip"
    )
    group.add_argument(
        "--images_per_prompt", type=flags.option("images"), default=1, metavar="N", help="default 1; column images"
    )
    group.add_argument("--seed", type=flags.option("seed"), default=0, metavar="N", help="default 0")
    flags.add_sampling_flags(group)
    group = parser.add_argument_group("images")
    flags.add_output_image_flags(group, caption="their prompts")
    group.add_argument("--keep_tokens", action="store_true", help="also write each image's codes, as encoding")
    flags.add_run_flags(parser, shard_of="prompts", batch_of="images")


@dataclass(frozen=True)
class ModelNames:
    """Which models draw and score. `model` is the BART; without `vqgan`, its folder holds one."""

    model: str
    vqgan: str | None
    clip: str | None
    pixel_range: tuple[float, float] | None

    @property
    def painter(self) -> str:
        """The name by which the VQGAN is found."""
        return self.vqgan or self.model


@dataclass(frozen=True)
class GenerateOptions:
    """`sampling` has the options that were given; for others the model's defaults apply."""

    job: JobOptions
    models: ModelNames
    images_per_prompt: int
    seed: int
    sampling: Drawing
    written: ImageOutput
    keep_tokens: bool
    keep_best: int | None


def options(args: argparse.Namespace) -> GenerateOptions:
    if not (args.input or args.prompt):
        raise UsageError("nothing to draw: give --input with files of prompts, or --prompt with the prompts themselves")
    if args.keep_best is not None:
        if args.clip is None:
            raise UsageError(
                "--keep_best needs --clip to tell which images are best: --clip emoji, or a folder with a CLIP"
            )
        if args.prompt and args.keep_best > args.images_per_prompt:  # rows of files may ask for more themselves
            raise UsageError(
                f"--keep_best {args.keep_best} of --images_per_prompt {args.images_per_prompt}: there are not so many"
            )
    return flags.fill(
        GenerateOptions,
        args,
        job=flags.job_options(args, "prompts"),
        models=flags.fill(ModelNames, args),
        sampling=flags.given(args, *SAMPLING),
        written=flags.fill(ImageOutput, args),
    )


def prepare(chosen: GenerateOptions, files: InputFiles) -> Task:
    """Raises `CheckpointError` and `ConfigError`."""
    from models.uniforms import UNIFORMS_VERSION
    from pipelines.planned_models import clip_preprocessing
    from transforms.work.generate import WRITTEN, Generate

    job, written = chosen.job, chosen.written
    models = open_models(chosen.models, job)
    drawing = drawing_of(models.bart, chosen.images_per_prompt, chosen.seed, chosen.sampling)
    fingerprint = {
        "drawing": dict(drawing),
        "uniforms_version": UNIFORMS_VERSION,
        **asdict(written),
        "keep_tokens": chosen.keep_tokens,
        "keep_best": chosen.keep_best or 0,
    }
    clip: dict[str, Any] = {"clip": "none"}
    if models.clip_pixels is not None:
        clip = {"clip_preprocessing": clip_preprocessing(models.clip_pixels)}

    def work(plan: Plan, settings: Settings) -> Work:
        return Generate(
            models=models.settings(plan, settings, job, drawing),
            drawing=drawing,
            written=written,
            model_name=str(plan.settings["model"]),
            spec=models.vqgan.spec,
            keep_tokens=chosen.keep_tokens,
            keep_best=chosen.keep_best,
        )

    def provenance(plan: Plan) -> dict[str, Any]:
        scored = {} if models.clip_pixels is None else clip
        return models.provenance("generate", plan) | fingerprint | scored

    return Task(
        models=models.planned,
        fingerprint=fingerprint | clip,
        input=replace(job.input, written=WRITTEN),
        inputs=files.listed,
        work=work,
        provenance=provenance,
        written=written,
        images_per_row=chosen.images_per_prompt,
        least_rows=1,
        fit_batch=True,
    )


@dataclass(frozen=True)
class Models:
    """The checkpoints that draw and paint, open but not loaded, and what planning needs of them, the BART first.
    `clip_pixels` is what the CLIP sees of an image, None if there is no CLIP. `vary` draws with them, too."""

    names: ModelNames
    bart: BartCheckpoint
    vqgan: TokenizerCheckpoint
    planned: tuple[PlannedModel, ...]
    clip_pixels: ClipPixels | None = None

    def settings(self, plan: Plan, settings: Settings, job: JobOptions, drawing: Drawing) -> GeneratorSettings:
        """How workers run the models."""
        from models.devices import INT8
        from pipelines.planned_models import anywhere
        from transforms.work.generate import GeneratorSettings
        from transforms.work.step import ModelSettings

        images = min(int(drawing["images"]), settings.batch_size)
        asked = InputSchema.from_json(plan.schema).options
        return GeneratorSettings(
            bart=anywhere(self.names.model),
            dtype=settings.dtype,
            vqgan=ModelSettings(
                name=anywhere(self.names.painter),
                cache_dir=job.model_cache,
                backend="torch",
                device=settings.device,
                dtype="bfloat16" if settings.dtype == INT8 else settings.dtype,
                batch_size=min(settings.batch_size, int(plan.settings["models"]["vqgan"]["batch_size"])),
                threads=settings.threads,
                pixel_range=self.names.pixel_range,
            ),
            slots=settings.batch_size // images,
            images_per_slot=images,
            guided="guidance_scale" in map(str.lower, asked) or drawing["guidance_scale"] != 1,
            clip=None if self.names.clip is None else anywhere(self.names.clip),
        )

    def provenance(self, command: str, plan: Plan) -> dict[str, Any]:
        """The provenance in every table: what `decode` needs to know of codes, and which models drew."""
        stored: Mapping[str, Mapping[str, Any]] = plan.settings["models"]
        used = {
            model.role: {"name": stored[model.role]["name"], "source": stored[model.role]["source"]}
            | dict(model.identity[model.role])
            for model in self.planned
        }
        painter = {"model": used["vqgan"]["name"], "model_source": used["vqgan"]["source"]}
        return tokenizer_provenance(command, self.vqgan, plan) | painter | {"models": used}


def open_models(names: ModelNames, job: JobOptions) -> Models:
    """Find the models and check that they go together, and with --dtype. Raises `CheckpointError` and `ConfigError`."""
    import torch

    from models.bart.checkpoint import check_pair
    from models.bart.generator import check_int8
    from models.clip.scorer import read_clip_parts
    from models.devices import INT8, resolve_device
    from models.errors import CheckpointError, ConfigError
    from pipelines.planned_models import bart_model, clip_model, tokenizer_model

    cache, settings = job.model_cache, job.settings
    model = find(names.model, cache)
    bart = model.bart
    bart.text_encoder()
    if settings.dtype == INT8:
        check_int8(bart.config, 2 * (settings.batch_size or 1), torch.device(resolve_device(settings.device)))
    if names.vqgan is None and not model.has_tokenizer:
        raise CheckpointError(
            f"--model {names.model} holds no VQGAN to paint with: name the one it goes with by --vqgan"
        )
    vqgan = find(names.painter, cache, names.pixel_range).tokenizer
    try:
        check_pair(bart.config, vqgan.spec)
    except ConfigError as error:
        raise ConfigError(f"--model {names.model} and --vqgan {names.painter} do not go together: {error}") from error
    planned = [
        bart_model(bart, names.model, Path(cache).expanduser(), most_images=2 if settings.dtype == INT8 else None),
        tokenizer_model(vqgan, names.painter, "vqgan"),
    ]
    clip_pixels = None
    if names.clip is not None:
        clip = find(names.clip, cache).clip
        clip_pixels, _ = read_clip_parts(clip)
        planned.append(clip_model(clip, names.clip, Path(cache).expanduser()))
    return Models(names, bart, vqgan, tuple(planned), clip_pixels)


def drawing_of(bart: BartCheckpoint, images: int, seed: int, sampling: Drawing) -> Drawing:
    """The given values, else the model's defaults, else those of dalle-mini's notebook."""
    return {"images": images, "seed": seed, **read_generation_defaults(bart.path), **sampling}


COMMAND = JobCommand(
    name="generate",
    description="Draw images for prompts with a DALL·E mini model, ranked by a CLIP if you like. Resumes by itself.",
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    schema_version=2,
    counts="images",
)
