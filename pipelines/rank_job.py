"""The job behind `vqbeam rank`: checks the CLIP, makes the plan request and what the workers get."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from models import find
from models.clip.scorer import read_clip_parts
from pipelines import request as requests
from pipelines.planned_models import PlannedModel, anywhere, clip_model, clip_preprocessing
from pipelines.run import default_workers, run_job
from transforms import storage
from transforms.batch import CLIP_SCORE, IMAGE
from transforms.engine.job import Job
from transforms.images import ImageLimits
from transforms.inputs import FetchOptions, InputSchema
from transforms.ledger.plan import Plan
from transforms.work.rank import Rank
from transforms.work.score_step import ClipSettings

WRITTEN = ("key", "caption", CLIP_SCORE, "original_width", "original_height")


def rank(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan or resume, and work; returns the exit code."""
    checkpoint = find(args.clip, args.model_cache).clip
    preprocess, _ = read_clip_parts(checkpoint)
    planned = clip_model(checkpoint, args.clip, Path(args.model_cache).expanduser())
    limits = ImageLimits(max_image_bytes=args.max_image_bytes, max_image_pixels=args.max_image_pixels)
    options = {
        "preprocessing": clip_preprocessing(preprocess),
        "rows": asdict(limits),
        "min_clip_score": "none" if args.min_clip_score is None else args.min_clip_score,
        "keep_images": args.keep_images,
    }
    request = requests.plan_request(args, "rank", "images", (planned,), options, beam_args)
    written = (*WRITTEN, IMAGE) if args.keep_images else WRITTEN
    request = replace(request, input=replace(request.input, written=written, caption_required=True))

    def make_job(plan: Plan) -> Job:
        return Job(
            work=Rank(
                clip=ClipSettings(
                    name=anywhere(args.clip),
                    cache_dir=args.model_cache,
                    device=args.device,
                    batch_size=args.batch_size or int(plan.settings["batch_size"]),
                    threads=requests.threads(args, plan),
                ),
                preprocess=preprocess,
                limits=limits,
                min_clip_score=args.min_clip_score,
                keep_images=args.keep_images,
            ),
            output=request.output,
            schema=InputSchema.from_json(plan.schema),
            provenance=provenance(planned, plan),
            version=requests.vqbeam_version(),
            max_error_rate=args.max_error_rate,
            fetch=FetchOptions(max_bytes=limits.max_image_bytes),
            decode_threads=requests.threads(args, plan),
            processes=args.workers or int(plan.settings["workers"] or 0) or default_workers(args.device),
        )

    data = storage.join(request.output, "data")
    look = f"vqbeam encode --input '{data}/*.parquet' --output tokens" if args.keep_images else data
    return run_job(request, requests.run_options(args, "images", look), make_job, beam_args)


def provenance(clip: PlannedModel, plan: Plan) -> dict[str, Any]:
    """What every table says of its making; nothing that changes from run to run."""
    return {
        "command": "rank",
        "clip": {"name": plan.settings["model"], "source": plan.settings["model_source"], **clip.identity["clip"]},
        "preprocessing": plan.fingerprint["preprocessing"],
        "min_clip_score": plan.fingerprint["min_clip_score"],
        "dtype": plan.fingerprint["dtype"],
        "schema_version": plan.fingerprint["schema_version"],
    }
