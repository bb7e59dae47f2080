"""`vqbeam rank`: images with captions -> how well they go together, by CLIP."""

from __future__ import annotations

import argparse

from pipelines import flags as job_flags
from transforms.images import ImageLimits

DESCRIPTION = "Score images against their captions with a CLIP, and keep the good ones if you like. Resumes by itself."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job_flags.add_input_flags(parser, "images")
    job_flags.add_output_flags(parser)
    group = parser.add_argument_group("model, run in float32")
    group.add_argument(
        "--clip",
        default="emoji",
        metavar="NAME",
        help=f"a transformers CLIPModel: {job_flags.MODEL_PLACES} (default emoji)",
    )
    job_flags.add_device_flag(group)
    job_flags.add_cache_flag(group)
    group = parser.add_argument_group("images")
    group.add_argument(
        "--min_clip_score", type=job_flags.cosine, metavar="X", help="filter: the least cosine, from -1 to 1"
    )
    group.add_argument(
        "--keep_images", action="store_true", help="also write the image files as they came, for encode to read"
    )
    group.add_argument("--max_image_bytes", type=job_flags.positive, default=ImageLimits.max_image_bytes, metavar="N")
    group.add_argument("--max_image_pixels", type=job_flags.positive, default=ImageLimits.max_image_pixels, metavar="N")
    job_flags.add_run_flags(parser)
    parser.set_defaults(dtype="float32")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    job_flags.check_places(args, "images")
    from pipelines.rank_job import rank  # torch and Beam take seconds: not for --help

    return rank(args, beam_args)
