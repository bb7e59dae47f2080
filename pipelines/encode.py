"""`vqbeam encode`: images with captions -> VQGAN tokens in Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines import flags
from pipelines.command import JobCommand
from pipelines.request import InputFiles, JobOptions, Settings, Task, TokenizerChoice, tokenizer_provenance
from transforms import storage
from transforms.images import ImageOptions, preprocessing_id
from transforms.ledger.plan import Plan

if TYPE_CHECKING:
    from transforms.work.work import Work


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "images")
    flags.add_output_flags(parser)
    flags.add_model_flags(parser, default="emoji")
    group = parser.add_argument_group("images")
    flags.add_image_flags(group)
    group.add_argument("--min_image_size", type=flags.positive, metavar="N", help="filter: shortest side in pixels")
    group.add_argument("--max_aspect_ratio", type=float, metavar="R", help="filter: long side / short side")
    group.add_argument("--require_caption", action="store_true", help="reject rows without a caption")
    flags.add_run_flags(parser)


@dataclass(frozen=True)
class EncodeOptions:
    """`image` has the fields of `ImageOptions` that were given; `size` comes from the model."""

    job: JobOptions
    tokenizer: TokenizerChoice
    image: Mapping[str, Any]
    require_caption: bool


def options(args: argparse.Namespace) -> EncodeOptions:
    image = flags.given_image_flags(args) | flags.given(args, "min_image_size", "max_aspect_ratio")
    job, tokenizer = flags.job_options(args, "images"), flags.fill(TokenizerChoice, args)
    return flags.fill(EncodeOptions, args, job=job, tokenizer=tokenizer, image=image)


def prepare(chosen: EncodeOptions, files: InputFiles) -> Task:
    """Raises `CheckpointError` and `ConfigError`."""
    from models.errors import ConfigError
    from pipelines.planned_models import tokenizer_model
    from transforms.work.encode import WRITTEN, Encode

    job, name = chosen.job, str(chosen.tokenizer.model)
    checkpoint = chosen.tokenizer.open(job.model_cache)
    if not checkpoint.spec.has_encoder:
        raise ConfigError(f"--model {name} ({checkpoint.spec.format}) holds a decoder only: it can decode, not encode")
    image = ImageOptions(size=checkpoint.spec.resolution, **chosen.image)
    preprocessing = preprocessing_id(image)
    limits = {
        "max_image_bytes": image.max_image_bytes,
        "max_image_pixels": image.max_image_pixels,
        "min_image_size": image.min_image_size or 0,
        "max_aspect_ratio": image.max_aspect_ratio or 0,
        "require_caption": chosen.require_caption,
    }

    def work(plan: Plan, settings: Settings) -> Work:
        return Encode(
            model=chosen.tokenizer.settings(job.model_cache, settings),
            image=image,
            spec=checkpoint.spec,
            require_caption=chosen.require_caption,
        )

    def provenance(plan: Plan) -> dict[str, Any]:
        return tokenizer_provenance("encode", checkpoint, plan) | {"preprocessing": preprocessing}

    tokens = storage.join(job.output, "data", "*.parquet")
    return Task(
        models=(tokenizer_model(checkpoint, name),),
        fingerprint={"preprocessing": preprocessing, "rows": limits},
        input=replace(job.input, written=WRITTEN),
        inputs=files.listed,
        work=work,
        provenance=provenance,
        look=f"vqbeam decode --input '{tokens}' --output images --contact_sheet",
        backend=chosen.tokenizer.backend,
        max_image_bytes=image.max_image_bytes,
    )


COMMAND = JobCommand(
    name="encode",
    description="Turn images with captions into VQGAN tokens, as Parquet ready for training. Resumes by itself.",
    add_flags=add_flags,
    options=options,
    prepare=prepare,
)
