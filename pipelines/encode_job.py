"""The job behind `vqbeam encode`: checks the model, makes the plan request and what the workers get."""

from __future__ import annotations

import argparse

from models import find
from models.errors import ConfigError
from models.image_tokenizer import TokenizerCheckpoint
from pipelines import request as requests
from pipelines.planned_models import tokenizer_model
from pipelines.run import default_workers, run_job
from transforms import storage
from transforms.engine.job import Job
from transforms.images import ImageOptions, preprocessing_id
from transforms.inputs import FetchOptions, InputSchema
from transforms.ledger.plan import Plan
from transforms.work.encode import Encode


def encode(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan or resume, and work; returns the exit code."""
    cache = args.model_cache
    checkpoint = open_encoder(args.model, cache, args.pixel_range)
    image = ImageOptions(
        size=checkpoint.spec.resolution,
        resize=args.resize,
        jpeg_scale=args.jpeg_scale == "auto",
        max_image_bytes=args.max_image_bytes,
        max_image_pixels=args.max_image_pixels,
        min_image_size=args.min_image_size,
        max_aspect_ratio=args.max_aspect_ratio,
    )
    preprocessing = preprocessing_id(image)
    limits = {
        "max_image_bytes": image.max_image_bytes,
        "max_image_pixels": image.max_image_pixels,
        "min_image_size": image.min_image_size or 0,
        "max_aspect_ratio": image.max_aspect_ratio or 0,
        "require_caption": args.require_caption,
    }
    request = requests.plan_request(
        args,
        "encode",
        "images",
        (tokenizer_model(checkpoint, args.model),),
        {"preprocessing": preprocessing, "rows": limits},
        beam_args,
        backend=args.backend,
    )

    def make_job(plan: Plan) -> Job:
        return Job(
            work=Encode(
                model=requests.model_settings(args, args.model, plan, cache),
                image=image,
                codes_per_image=checkpoint.spec.codes_per_image,
                codebook_size=checkpoint.spec.codebook_size,
                require_caption=args.require_caption,
            ),
            output=request.output,
            schema=InputSchema.from_json(plan.schema),
            provenance=requests.provenance("encode", checkpoint, plan) | {"preprocessing": preprocessing},
            version=requests.vqbeam_version(),
            max_error_rate=args.max_error_rate,
            fetch=FetchOptions(max_bytes=image.max_image_bytes),
            decode_threads=requests.threads(args, plan),
            processes=args.workers or int(plan.settings["workers"] or 0) or default_workers(args.device),
        )

    look = (
        f"vqbeam decode --input '{storage.join(request.output, 'data', '*.parquet')}' --output pictures --contact_sheet"
    )
    return run_job(request, requests.run_options(args, "images", look), make_job, beam_args)


def open_encoder(model: str, cache: str, pixel_range: tuple[float, float] | None) -> TokenizerCheckpoint:
    """Find a model that can encode. Raises `CheckpointError` and `ConfigError`."""
    checkpoint = find(model, cache, pixel_range).tokenizer
    if not checkpoint.spec.has_encoder:
        raise ConfigError(f"--model {model} ({checkpoint.spec.format}) holds a decoder only: it can decode, not encode")
    return checkpoint
