"""`vqbeam rank`: images with captions -> how well they go together, by CLIP."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from models import find
from models.clip.text import ClipText
from pipelines import flags, image_reading
from pipelines.command import JobCommand
from pipelines.flag_values import cosine
from pipelines.output_size import ROW
from pipelines.planned_models import CLIP_TEXTS, OPEN_CLIP_TEXT, clip_model, clip_preprocessing, clip_texts
from pipelines.request import JobOptions, Settings, Task
from transforms import storage
from transforms.batch import IMAGE
from transforms.errors import UsageError
from transforms.image_formats import libavif_version
from transforms.image_options import ImageLimits
from transforms.ledger.plan import Plan


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "images")
    flags.add_output_flags(parser)
    group = parser.add_argument_group("model, run in float32")
    group.add_argument(
        "--clip", default="emoji", metavar="NAME", help=f"a transformers CLIPModel: {flags.MODEL_NAMES} (default emoji)"
    )
    flags.add_clip_text_flag(group, "captions")
    flags.add_model_flags(group, "device", "model_cache")
    group = parser.add_argument_group("images")
    group.add_argument("--min_clip_score", type=cosine, metavar="X", help="filter: the least cosine, from -1 to 1")
    group.add_argument(
        "--keep_images", action="store_true", help="also write the image files as they came, for encode to read"
    )
    group.add_argument(
        "--contact_sheet", action="store_true", help="with --keep_images: also one PNG of some of them, best first"
    )
    flags.add_limit_flags(group)
    flags.add_run_flags(parser)
    parser.set_defaults(dtype="float32")


@dataclass(frozen=True)
class RankOptions:
    """`limits` has the fields of `ImageLimits` that were given."""

    job: JobOptions
    clip: str
    limits: Mapping[str, Any]
    min_clip_score: float | None
    keep_images: bool
    clip_text: ClipText | None


def options(args: argparse.Namespace) -> RankOptions:
    limits = flags.given_limit_flags(args)
    if args.contact_sheet and not args.keep_images:
        raise UsageError("--contact_sheet shows the images that rank keeps: add --keep_images, or leave it out")
    return flags.fill(RankOptions, args, job=flags.job_options(args, "images"), limits=limits)


def prepare(chosen: RankOptions) -> Task:
    """Raises `CheckpointError`."""
    from models.clip.scorer import read_clip_parts
    from transforms.outputs import table
    from transforms.outputs.contact_sheet import Kept, open_image
    from transforms.work.rank import WRITTEN, Rank
    from transforms.work.step import ClipSettings

    job = chosen.job
    checkpoint = find(chosen.clip, job.model_cache).clip
    preprocess, _ = read_clip_parts(checkpoint)
    planned = clip_model(checkpoint, chosen.clip, job.model_cache)
    limits = ImageLimits(**chosen.limits)

    def work(plan: Plan, settings: Settings) -> Rank:
        clip = ClipSettings(
            name=planned.source,
            cache_dir=job.model_cache,
            device=settings.device,
            batch_size=settings.batch_size,
            threads=settings.threads,
            clip_text=plan.choice("clip_text"),
        )
        read = image_reading.as_planned(limits, plan)
        return Rank(clip, preprocess, read, chosen.min_clip_score, chosen.keep_images)

    def provenance(plan: Plan) -> dict[str, Any]:
        clip = {"name": plan.settings["model"], "source": plan.settings["model_source"], **planned.identity}
        kept = ("preprocessing", *CLIP_TEXTS, "min_clip_score", "dtype", "schema_version")
        known = {name: plan.fingerprint[name] for name in kept if name in plan.fingerprint}
        return {"command": plan.command, "clip": clip} | known

    data = storage.join(job.output, "data")
    return Task(
        models=(planned,),
        fingerprint={
            "preprocessing": {
                **clip_preprocessing(preprocess),
                **image_reading.icc_choice(chosen.limits),
                "libavif": libavif_version(),
            },
            **clip_texts(chosen.clip_text),
            "rows": image_reading.rows_choice(limits, chosen.limits, "max_image_bytes", "max_image_pixels"),
            "min_clip_score": "none" if chosen.min_clip_score is None else chosen.min_clip_score,
            "keep_images": chosen.keep_images,
        },
        open={**image_reading.OPEN, **OPEN_CLIP_TEXT},
        input=replace(
            job.files.request,
            written=tuple(name for name in WRITTEN if chosen.keep_images or name != IMAGE),
            caption_required=True,
        ),
        work=work,
        provenance=provenance,
        kept=Kept(table.LAYOUT, partial(open_image, limits=limits)) if chosen.keep_images else None,
        look=f"vqbeam encode --input '{data}/*.parquet' --output tokens" if chosen.keep_images else data,
        max_image_bytes=limits.max_image_bytes,
        row_bytes=None if chosen.keep_images else ROW,
    )


COMMAND = JobCommand(
    name="rank",
    description="Score images against their captions with a CLIP, and keep the good ones if you like. "
    "Resumes by itself.",
    examples=(
        "vqbeam rank --input 'pairs/*.tar' --output ranked --clip emoji",
        "vqbeam rank --input 'pairs/*.tar' --output good --min_clip_score 0.3",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
)
