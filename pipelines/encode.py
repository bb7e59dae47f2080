"""`vqbeam encode`: images with captions -> VQGAN tokens in Parquet."""

from __future__ import annotations

import argparse

from pipelines import flags as job_flags
from transforms.images import ImageOptions

DESCRIPTION = "Turn images with captions into VQGAN tokens, as Parquet ready for training. Resumes by itself."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job_flags.add_input_flags(parser, "images")
    job_flags.add_output_flags(parser)
    job_flags.add_model_flags(parser, default="emoji")
    group = parser.add_argument_group("images")
    group.add_argument(
        "--resize",
        choices=("center_crop", "pad", "squash", "none"),
        default="center_crop",
        help="how a picture becomes the model's square (default center_crop)",
    )
    group.add_argument(
        "--jpeg_scale", choices=("auto", "off"), default="auto", help="off: decode JPEGs in full before resizing"
    )
    group.add_argument("--max_image_bytes", type=job_flags.positive, default=ImageOptions.max_image_bytes, metavar="N")
    group.add_argument(
        "--max_image_pixels", type=job_flags.positive, default=ImageOptions.max_image_pixels, metavar="N"
    )
    group.add_argument("--min_image_size", type=job_flags.positive, metavar="N", help="filter: shortest side in pixels")
    group.add_argument("--max_aspect_ratio", type=float, metavar="R", help="filter: long side / short side")
    group.add_argument("--require_caption", action="store_true", help="reject rows without a caption")
    job_flags.add_run_flags(parser)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    job_flags.check_places(args, "images")
    from pipelines.encode_job import encode  # torch and Beam take seconds: not for --help

    return encode(args, beam_args)
