"""`vqbeam generate`: prompts -> images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from models import find
from models.bart.options import SAMPLING, Drawing, read_generation_defaults
from models.clip.text import ClipText
from models.image_tokenizer import PixelRange, TokenizerCheckpoint
from pipelines import flags, output_size
from pipelines.command import JobCommand
from pipelines.flag_values import dtype, option, positive
from pipelines.planned_models import (
    CLIP_TEXTS,
    DECODE,
    OPEN_CLIP_TEXT,
    PlannedModel,
    bart_model,
    clip_model,
    clip_preprocessing,
    clip_texts,
    tokenizer_model,
)
from pipelines.request import JobOptions, Settings, Task, TokenizerChoice, tokenizer_provenance
from transforms.errors import UsageError
from transforms.ledger.plan import Plan
from transforms.outputs.layout import ImageOutput

if TYPE_CHECKING:
    from models.bart.checkpoint import BartCheckpoint
    from models.clip.pixels import ClipPixels
    from transforms.work.generate import GeneratorSettings


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "prompts")
    flags.add_output_flags(parser)
    group = parser.add_argument_group("models")
    group.add_argument(
        "--model", default="emoji", metavar="NAME", help=f"the DALL·E BART: {flags.MODEL_NAMES} (default emoji)"
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN that paints; default: in --model's folder")
    group.add_argument(
        "--clip", metavar="NAME", help="a CLIP that scores and ranks the images of each prompt; emoji is built in"
    )
    flags.add_clip_text_flag(group, "prompts")
    flags.add_model_flags(group, "device")
    group.add_argument(
        "--dtype",
        type=dtype,
        choices=(*flags.DTYPES, "int8"),
        default="auto",
        help=f"{flags.DTYPE_HELP}; int8: the weights that draw, on a CPU",
    )
    flags.add_model_flags(group, "pixel_range", "model_cache")
    group = parser.add_argument_group("drawing; columns of the input may set each of the last six for a row")
    group.add_argument(
        "--keep_best", type=positive, metavar="K", help="keep the K best images of each prompt, by --clip"
    )
    group.add_argument(
        "--images_per_prompt",
        type=option("images"),
        default=1,
        metavar="N",
        help="default 1; column images",
    )
    group.add_argument("--seed", type=option("seed"), default=0, metavar="N", help="default 0")
    flags.add_sampling_flags(group)
    group = parser.add_argument_group("images")
    flags.add_output_image_flags(group, caption="their prompts")
    group.add_argument("--keep_tokens", action="store_true", help="also write each image's codes, as encoding")
    flags.add_run_flags(parser, shard_of="prompts", batch_of="images")


@dataclass(frozen=True)
class GenerateOptions:
    """`model` is the BART; without `vqgan`, its folder holds one. `sampling` has the options that were given; for
    others the model's defaults apply."""

    job: JobOptions
    model: str
    vqgan: str | None
    clip: str | None
    pixel_range: PixelRange | None
    images_per_prompt: int
    seed: int
    sampling: Drawing
    written: ImageOutput
    keep_tokens: bool
    keep_best: int | None
    clip_text: ClipText | None


def options(args: argparse.Namespace) -> GenerateOptions:
    if not (args.patterns or args.prompts):
        raise UsageError("nothing to draw: give --input with files of prompts, or --prompt with the prompts themselves")
    if args.clip_text and args.clip is None:
        raise UsageError("--clip_text is how --clip reads prompts: give --clip, or leave it out")
    if args.keep_best is not None:
        if args.clip is None:
            raise UsageError(
                "--keep_best needs --clip to tell which images are best: --clip emoji, or a folder with a CLIP"
            )
        if args.prompts and args.keep_best > args.images_per_prompt:  # rows of files may ask for more themselves
            raise UsageError(
                f"--keep_best {args.keep_best} of --images_per_prompt {args.images_per_prompt}: there are not so many"
            )
    return flags.fill(
        GenerateOptions,
        args,
        job=flags.job_options(args, "prompts"),
        sampling=flags.given(args, *SAMPLING),
        written=flags.fill(ImageOutput, args),
    )


def prepare(chosen: GenerateOptions) -> Task:
    """Raises `CheckpointError` and `ConfigError`."""
    from models.uniforms import UNIFORMS_VERSION
    from transforms.work.generate import WRITTEN, Generate

    job, written = chosen.job, chosen.written
    models = open_models(job, chosen.model, chosen.vqgan, chosen.clip, chosen.pixel_range)
    drawing = models.drawing(chosen.images_per_prompt, chosen.seed, chosen.sampling)
    fingerprint = {
        "drawing": dict(drawing),
        "uniforms_version": UNIFORMS_VERSION,
        **asdict(written),
        "keep_tokens": chosen.keep_tokens,
        "keep_best": chosen.keep_best or 0,
    }
    scored: dict[str, Any] = {}
    if models.clip_pixels:
        scored["clip_preprocessing"] = clip_preprocessing(models.clip_pixels)
        scored |= clip_texts(chosen.clip_text)
    spec = models.vqgan.spec
    row_bytes = output_size.of_image(spec, written) + (output_size.of_codes(spec) if chosen.keep_tokens else 0.0)

    return Task(
        models=models.planned,
        fingerprint=fingerprint | (scored or {"clip": "none"}),
        input=replace(job.files.request, written=WRITTEN),
        work=lambda plan, settings: Generate(
            models=models.settings(plan, settings, drawing),
            drawing=drawing,
            written=written,
            model_name=str(plan.settings["model"]),
            spec=spec,
            keep_tokens=chosen.keep_tokens,
            keep_best=chosen.keep_best,
        ),
        provenance=lambda plan: models.provenance(plan) | fingerprint | as_planned(scored, plan),
        written=written,
        open=OPEN_CLIP_TEXT if scored else {},
        drawn=models.bart.config,
        images_per_row=chosen.images_per_prompt,
        pixels=spec.resolution**2,
        row_bytes=row_bytes * min(1.0, (chosen.keep_best or chosen.images_per_prompt) / chosen.images_per_prompt),
        fit_batch=True,
    )


def as_planned(scored: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """`scored` with the choices of the plan, and without those that it is older than."""
    texts = {name: plan.fingerprint[name] for name in CLIP_TEXTS if name in plan.fingerprint}
    return {name: value for name, value in scored.items() if name not in CLIP_TEXTS} | texts


@dataclass(frozen=True)
class Models:
    """The checkpoints that draw and paint, open but not loaded, and what planning needs of them, the BART first.
    `painter` is how workers find the VQGAN. `clip_pixels` is what the CLIP sees of an image, None if there is no CLIP.
    `vary` draws with them, too."""

    bart: BartCheckpoint
    vqgan: TokenizerCheckpoint
    painter: TokenizerChoice
    planned: tuple[PlannedModel, ...]
    clip_pixels: ClipPixels | None

    def drawing(self, images: int, seed: int, sampling: Drawing) -> Drawing:
        """The given values, else the model's defaults, else those of dalle-mini's notebook."""
        return {"images": images, "seed": seed, **read_generation_defaults(self.bart.path), **sampling}

    def settings(self, plan: Plan, settings: Settings, drawing: Drawing) -> GeneratorSettings:
        """How workers run the models."""
        from models.devices import INT8
        from transforms.work.generate import GeneratorSettings

        images = min(int(drawing["images"]), settings.batch_size)
        vqgan = replace(
            settings,
            dtype=plan.choice("painted_in") or ("bfloat16" if settings.dtype == INT8 else settings.dtype),
            batch_size=min(settings.batch_size, int(plan.settings["models"]["vqgan"]["batch_size"])),
        )
        asked = plan.schema.get("options", ())
        sources = {model.role: model.source for model in self.planned}
        return GeneratorSettings(
            bart=sources["bart"],
            dtype=settings.dtype,
            vqgan=self.painter.settings(vqgan),
            slots=settings.batch_size // images,
            images_per_slot=images,
            guided="guidance_scale" in map(str.lower, asked) or drawing["guidance_scale"] != 1,
            clip=sources.get("clip"),
            clip_text=plan.choice("clip_text"),
            products=plan.choice("products"),
        )

    def provenance(self, plan: Plan) -> dict[str, Any]:
        """The provenance in every table: what `decode` needs to know of codes, and which models drew."""
        stored: Mapping[str, Mapping[str, Any]] = plan.settings["models"]
        used = {
            model.role: {"name": stored[model.role]["name"], "source": stored[model.role]["source"]}
            | dict(model.identity)
            for model in self.planned
        }
        painter = {"model": used["vqgan"]["name"], "model_source": used["vqgan"]["source"]}
        return tokenizer_provenance(self.vqgan, plan) | painter | {"models": used}


def open_models(
    job: JobOptions, name: str, vqgan: str | None, clip: str | None, pixel_range: PixelRange | None
) -> Models:
    """Find the models and check that they go together, and with --dtype. Raises `CheckpointError` and `ConfigError`."""
    from models.bart.checkpoint import check_pair
    from models.devices import INT8, resolve_device
    from models.errors import CheckpointError, ConfigError

    cache, settings = job.model_cache, job.settings
    model = find(name, cache)
    bart = model.bart
    bart.text_encoder()
    if settings.dtype == INT8:
        import torch

        from models.bart.generator import check_int8

        device = resolve_device(settings.device) if job.local else settings.device.replace("auto", "cpu")
        check_int8(bart.config, torch.device(device))
    if vqgan is None and not model.has_tokenizer:
        raise CheckpointError(f"--model {name} holds no VQGAN to paint with: name the one it goes with by --vqgan")
    painter = TokenizerChoice(vqgan or name, cache, pixel_range)
    checkpoint = painter.open()
    try:
        check_pair(bart.config, checkpoint.spec)
    except ConfigError as error:
        raise ConfigError(f"--model {name} and --vqgan {painter.model} do not go together: {error}") from error
    planned = [
        bart_model(bart, name, cache),
        tokenizer_model(checkpoint, vqgan or name, "vqgan", DECODE),
    ]
    clip_pixels = None
    if clip is not None:
        from models.clip.scorer import read_clip_parts

        scorer = find(clip, cache).clip
        clip_pixels, _ = read_clip_parts(scorer)
        planned.append(clip_model(scorer, clip, cache))
    return Models(bart, checkpoint, painter, tuple(planned), clip_pixels)


COMMAND = JobCommand(
    name="generate",
    description="Draw images for prompts with a DALL·E mini model, ranked by a CLIP if you like. Resumes by itself.",
    examples=(
        'vqbeam generate --prompt "a red apple" --output drawn --contact_sheet',
        "vqbeam generate --input prompts.txt --output best --clip emoji --keep_best 1",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    schema_version=2,
    counts="images",
)
