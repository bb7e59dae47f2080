"""The job behind `vqbeam vary`: tells pictures from tokens, checks that models, method and input go together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models import find
from models.bart.options import Drawing
from models.errors import ConfigError
from models.image_tokenizer import TokenizerCheckpoint
from models.uniforms import UNIFORMS_VERSION
from models.vqgan.variations import VARIATIONS_VERSION, kept_rows
from pipelines import generate_job
from pipelines import request as requests
from pipelines.flags import inputs_of
from pipelines.planned_models import PlannedModel, tokenizer_model
from pipelines.planning import LEAST_ROWS, PlanRequest
from pipelines.run import default_workers, run_job
from pipelines.vary import STRENGTH
from pipelines.vary_input import image_options, input_kind
from transforms import storage
from transforms.engine.job import Job
from transforms.errors import UsageError
from transforms.images import preprocessing_id
from transforms.inputs import FetchOptions, InputSchema
from transforms.inputs.provenance import mismatch, token_provenance
from transforms.inputs.request import Kind
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan
from transforms.outputs.contact_sheet import write_contact_sheet
from transforms.outputs.layout import ImageOutput
from transforms.work.step import ModelSettings
from transforms.work.vary import Vary
from transforms.work.vary_step import CodeNoise, Completion, LatentNoise, Variation

PICTURE = ("sample", "seed", "encoding", "image", "image_path", "width", "height")  # columns about a picture
WRITTEN = ("key", "caption", *PICTURE)


def vary(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan or resume, and work; returns the exit code."""
    kind = input_kind(args)
    args = _as_generate_reads(args, model_name(args, kind))
    models = open_models(args)
    check_models(args, kind, models.vqgan)
    size = models.vqgan.spec.resolution
    image = image_options(args, size)
    written = ImageOutput(args.image_format, args.image_layout)
    options = fingerprint_options(args, kind, models, written)
    if kind == "images":
        rows = {"max_image_bytes": image.max_image_bytes, "max_image_pixels": image.max_image_pixels}
        options |= {"preprocessing": preprocessing_id(image), "rows": rows}
    request = requests.plan_request(
        args,
        "vary",
        kind,
        models.planned,
        options,
        beam_args,
        backend=args.backend,
        pictures_per_row=args.images_per_input,
        least_rows=1 if models.drawn else max(1, LEAST_ROWS // args.images_per_input),
        fit_batch=models.drawn is not None,
    )
    asked = replace(request.input, written=WRITTEN, moved=PICTURE, caption_required=models.drawn is not None)
    request = replace(request, input=asked)

    def make_job(plan: Plan) -> Job:
        schema = InputSchema.from_json(plan.schema)
        model, variation = variation_of(args, models, plan, schema)
        return Job(
            work=Vary(
                model=model,
                variation=variation,
                options=models.drawing or {"images": args.images_per_input, "seed": args.seed},
                image=image,
                written=written,
                codes_per_image=models.vqgan.spec.codes_per_image,
                codebook_size=models.vqgan.spec.codebook_size,
                about=about(args, str(plan.settings["model"]), options),
                keep_tokens=args.keep_tokens,
                expected_codebook=None if kind == "images" or args.allow_model_mismatch else models.vqgan.codebook_id(),
            ),
            output=request.output,
            schema=schema,
            provenance=provenance(request, models, plan),
            version=requests.vqbeam_version(),
            max_error_rate=args.max_error_rate,
            fetch=FetchOptions(max_bytes=image.max_image_bytes),
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
    """The checkpoints of a job, open but not loaded. `drawn` and `drawing` are there where a BART draws."""

    vqgan: TokenizerCheckpoint
    planned: tuple[PlannedModel, ...]
    drawn: generate_job.Models | None = None
    drawing: Drawing | None = None


def model_name(args: argparse.Namespace, kind: Kind) -> str:
    """What the flags name, else what made the tokens, else the embedded one. Raises `UsageError`."""
    named = args.model or (args.vqgan if args.method != "model" else None)
    if named or kind == "images":
        return str(named or "emoji")
    first = inputs_of(args, kind).files[0].uri
    made_by = token_provenance(first)
    if made_by is None:
        raise UsageError(f"{first} does not say which model made its codes: name it with --model")
    return str(made_by["model_source"])


def _as_generate_reads(args: argparse.Namespace, model: str) -> argparse.Namespace:
    """The flags as the functions of `generate_job` take them."""
    return argparse.Namespace(**vars(args) | {"model": model, "clip": None, "images_per_prompt": args.images_per_input})


def open_models(args: argparse.Namespace) -> Models:
    """Find the models that the method needs. Raises `CheckpointError` and `ConfigError`."""
    if args.method == "model":
        drawn = generate_job.open_models(args)
        return Models(drawn.vqgan, drawn.planned, drawn, generate_job.drawing_of(args, drawn.bart))
    name = generate_job.vqgan_name(args)
    vqgan = find(name, args.model_cache, args.pixel_range).tokenizer
    return Models(vqgan, (tokenizer_model(vqgan, name),))


def check_models(args: argparse.Namespace, kind: Kind, vqgan: TokenizerCheckpoint) -> None:
    """Raise `ConfigError` or `UsageError` where the VQGAN cannot do what is asked of it."""
    name = generate_job.vqgan_name(args)
    if kind == "images" and not vqgan.spec.has_encoder:
        raise ConfigError(
            f"{name} ({vqgan.spec.format}) holds a decoder only: it can vary tokens, not images. Encode them with the "
            "model that it is the decoder of"
        )
    if kind == "codes" and args.method == "latent" and not vqgan.spec.nearest:
        raise ConfigError(
            f"--method latent: the codes of {name} are no points among its latents; give the images themselves, or "
            "choose --method codes"
        )
    grid = vqgan.spec.grid
    if args.keep_rows is not None and not 0 <= args.keep_rows <= grid:
        raise UsageError(
            f"--keep_rows {args.keep_rows}: the model has {grid} rows of codes, so 0 to {grid} can be kept"
        )
    if kind == "codes" and not args.allow_model_mismatch:
        first = inputs_of(args, kind).files[0].uri
        problem = mismatch(first, token_provenance(first), vqgan.codebook_id())
        if problem:
            raise UsageError(problem)


def strength_of(args: argparse.Namespace) -> float:
    return STRENGTH if args.strength is None else float(args.strength)


def keep_rows_of(args: argparse.Namespace, grid: int) -> int:
    return kept_rows(strength_of(args), grid) if args.keep_rows is None else int(args.keep_rows)


def variation_of(
    args: argparse.Namespace, models: Models, plan: Plan, schema: InputSchema
) -> tuple[ModelSettings, Variation]:
    """How workers run the VQGAN, and the method."""
    if models.drawn is not None and models.drawing is not None:
        settings = generate_job.generator_settings(args, models.drawn, plan, schema, models.drawing)
        return settings.vqgan, Completion(settings, keep_rows_of(args, models.vqgan.spec.grid))
    model = requests.model_settings(args, generate_job.vqgan_name(args), plan, args.model_cache)
    method = LatentNoise if args.method == "latent" else CodeNoise
    return model, method(strength_of(args))


def fingerprint_options(args: argparse.Namespace, kind: Kind, models: Models, written: ImageOutput) -> dict[str, Any]:
    """What decides the output beside the models and the rows."""
    options: dict[str, Any] = {
        "input_kind": kind,
        "method": args.method,
        "images_per_input": args.images_per_input,
        "seed": args.seed,
        "uniforms_version": UNIFORMS_VERSION,
        "variations_version": VARIATIONS_VERSION,
        "image_format": written.image_format,
        "image_layout": written.image_layout,
        "keep_tokens": args.keep_tokens,
    }
    if args.keep_rows is None:
        options["strength"] = strength_of(args)
    if models.drawing is not None:
        options |= {
            "keep_rows": keep_rows_of(args, models.vqgan.spec.grid),
            "drawing": dict(models.drawing),
        }
    return options


def about(args: argparse.Namespace, model: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What every PNG says."""
    amounts = {name: str(options[name]) for name in ("strength", "keep_rows") if name in options}
    return {"method": args.method, **amounts, "model": model}


def provenance(request: PlanRequest, models: Models, plan: Plan) -> dict[str, Any]:
    """What every table says of its making."""
    if models.drawn is not None:
        return generate_job.provenance(request, models.drawn, plan)
    return requests.provenance(request.command, models.vqgan, plan) | dict(request.options)
