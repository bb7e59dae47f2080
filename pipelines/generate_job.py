"""The job behind `vqbeam generate`: checks that the models go together, and makes the plan request and the work."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models import find
from models.bart.checkpoint import BartCheckpoint, check_pair
from models.bart.generator import check_int8
from models.bart.options import Drawing, read_generation_defaults
from models.clip.pixels import ClipPixels
from models.clip.scorer import read_clip_parts
from models.devices import INT8, resolve_device
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerCheckpoint
from models.uniforms import UNIFORMS_VERSION
from pipelines import request as requests
from pipelines.planned_models import PlannedModel, anywhere, bart_model, clip_model, clip_preprocessing, tokenizer_model
from pipelines.planning import PlanRequest
from pipelines.run import default_workers, run_job
from transforms import storage
from transforms.engine.job import Job
from transforms.inputs import InputSchema
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan
from transforms.outputs.contact_sheet import write_contact_sheet
from transforms.outputs.layout import ImageOutput
from transforms.work.generate import Generate
from transforms.work.generate_step import GeneratorSettings
from transforms.work.step import ModelSettings


def generate(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan or resume, and work; returns the exit code."""
    models = open_models(args)
    drawing = drawing_of(args, models.bart)
    written = ImageOutput(args.image_format, args.image_layout)
    request = requests.plan_request(
        args,
        "generate",
        "prompts",
        models.planned,
        fingerprint_options(args, models, drawing, written),
        beam_args,
        pictures_per_row=int(drawing["images"]),
        least_rows=1,
        fit_batch=True,
    )

    def make_job(plan: Plan) -> Job:
        schema = InputSchema.from_json(plan.schema)
        return Job(
            work=Generate(
                models=generator_settings(args, models, plan, schema, drawing),
                drawing=drawing,
                written=written,
                model_name=str(plan.settings["model"]),
                codes_per_image=models.vqgan.spec.codes_per_image,
                codebook_size=models.vqgan.spec.codebook_size,
                keep_tokens=args.keep_tokens,
                keep_best=args.keep_best,
            ),
            output=request.output,
            schema=schema,
            provenance=provenance(request, models, plan),
            version=requests.vqbeam_version(),
            max_error_rate=args.max_error_rate,
            decode_threads=requests.threads(args, plan),
            processes=args.workers or int(plan.settings["workers"] or 0) or default_workers(args.device),
        )

    sheet, folder = OutputFolder(request.output).contact_sheet, written.layout.images_folder
    look = sheet if args.contact_sheet else storage.join(request.output, folder)
    code = run_job(request, requests.run_options(args, "images", look), make_job, beam_args)
    if args.contact_sheet and not args.dry_run and code in (0, 1):
        write_contact_sheet(request.output, written.layout)
    return code


@dataclass(frozen=True)
class Models:
    """The checkpoints of a job, open but not loaded, and what planning needs of them, the BART first. `clip_pixels` is
    what the CLIP sees of a picture, None where there is no CLIP."""

    bart: BartCheckpoint
    vqgan: TokenizerCheckpoint
    planned: tuple[PlannedModel, ...]
    clip_pixels: ClipPixels | None = None


def open_models(args: argparse.Namespace) -> Models:
    """Find the models and check that they go together, and with --dtype. Raises `CheckpointError` and `ConfigError`."""
    cache = args.model_cache
    model = find(args.model, cache)
    bart = model.bart
    bart.text_encoder()
    if args.dtype == INT8:
        check_int8(bart.config, 2 * (args.batch_size or 1), torch.device(resolve_device(args.device)))
    if args.vqgan is None and not model.has_tokenizer:
        raise CheckpointError(
            f"--model {args.model} holds no VQGAN to paint with: name the one it goes with by --vqgan"
        )
    vqgan = find(vqgan_name(args), cache, args.pixel_range).tokenizer
    try:
        check_pair(bart.config, vqgan.spec)
    except ConfigError as error:
        raise ConfigError(f"--model {args.model} and --vqgan {vqgan_name(args)} do not go together: {error}") from error
    planned = [
        bart_model(bart, args.model, Path(cache).expanduser(), most_pictures=2 if args.dtype == INT8 else None),
        tokenizer_model(vqgan, vqgan_name(args), "vqgan"),
    ]
    clip_pixels = None
    if args.clip is not None:
        clip = find(args.clip, cache).clip
        clip_pixels, _ = read_clip_parts(clip)
        planned.append(clip_model(clip, args.clip, Path(cache).expanduser()))
    return Models(bart, vqgan, tuple(planned), clip_pixels)


def vqgan_name(args: argparse.Namespace) -> str:
    return str(args.vqgan or args.model)


def drawing_of(args: argparse.Namespace, bart: BartCheckpoint) -> Drawing:
    """What the flags say, else the model, else dalle-mini's notebook."""
    chosen = read_generation_defaults(bart.path)
    chosen |= {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    return {"images": args.images_per_prompt, "seed": args.seed, **chosen}


def fingerprint_options(
    args: argparse.Namespace, models: Models, drawing: Drawing, written: ImageOutput
) -> dict[str, Any]:
    """What decides the output beside the models and the input."""
    clip_pixels = models.clip_pixels
    return {
        "drawing": dict(drawing),
        "uniforms_version": UNIFORMS_VERSION,
        "image_format": written.image_format,
        "image_layout": written.image_layout,
        "keep_tokens": args.keep_tokens,
        "keep_best": args.keep_best or 0,
        **({"clip": "none"} if clip_pixels is None else {"clip_preprocessing": clip_preprocessing(clip_pixels)}),
    }


def generator_settings(
    args: argparse.Namespace, models: Models, plan: Plan, schema: InputSchema, drawing: Drawing
) -> GeneratorSettings:
    """How workers run the models: what this command says, else what the stored plan resolved."""
    batch_size = args.batch_size or int(plan.settings["batch_size"])
    pictures = min(int(drawing["images"]), batch_size)
    dtype = str(plan.fingerprint["dtype"])
    own_guidance = "guidance_scale" in [name.lower() for name in schema.options]
    return GeneratorSettings(
        bart=anywhere(args.model),
        dtype=dtype,
        vqgan=ModelSettings(
            name=anywhere(vqgan_name(args)),
            cache_dir=args.model_cache,
            backend="torch",
            device=args.device,
            dtype="bfloat16" if dtype == INT8 else dtype,
            batch_size=min(batch_size, int(plan.settings["models"]["vqgan"]["batch_size"])),
            threads=requests.threads(args, plan),
            pixel_range=args.pixel_range,
        ),
        prompts=batch_size // pictures,
        pictures=pictures,
        guided=own_guidance or drawing["guidance_scale"] != 1,
        clip=None if args.clip is None else anywhere(args.clip),
    )


def provenance(request: PlanRequest, models: Models, plan: Plan) -> dict[str, Any]:
    """What every table says of its making: all that `decode` asks of a table of codes, and how they were drawn."""
    planned: Mapping[str, Mapping[str, Any]] = plan.settings["models"]
    used = {
        model.role: {"name": planned[model.role]["name"], "source": planned[model.role]["source"]}
        | dict(model.identity[model.role])
        for model in request.models
    }
    return (
        requests.provenance(request.command, models.vqgan, plan)
        | {"model": used["vqgan"]["name"], "model_source": used["vqgan"]["source"], "models": used}
        | {name: value for name, value in request.options.items() if name != "clip"}
    )
