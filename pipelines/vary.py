"""`vqbeam vary`: pictures or their tokens -> variations of them."""

from __future__ import annotations

import argparse

from models.bart.options import SAMPLING
from pipelines import flags as job_flags
from transforms.errors import UsageError

DESCRIPTION = (
    "Make variations of pictures, or of the pictures that tokens stand for, by noise on their codes or by having a "
    "DALL·E mini model draw a part anew. Strength 0 gives their reconstructions. Resumes by itself."
)
METHODS = ("latent", "codes", "model")
STRENGTH = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job_flags.add_input_flags(parser, "images")
    group = parser.add_argument_group("input that is tokens: Parquet with a column of codes and none of image bytes")
    group.add_argument("--code_column", metavar="NAME", help="column of codes; else guessed (encoding, codes, ...)")
    group.add_argument(
        "--allow_model_mismatch", action="store_true", help="vary codes that another model made: mostly nonsense"
    )
    job_flags.add_output_flags(parser)
    group = parser.add_argument_group("variation")
    group.add_argument(
        "--method",
        choices=METHODS,
        default="latent",
        help="latent: noise before the codes are chosen; codes: a share of them redrawn among their neighbours; model: "
        "the upper rows of codes kept, the rest drawn for the caption (default latent)",
    )
    group.add_argument(
        "--strength",
        type=job_flags.share,
        metavar="S",
        help=f"from 0, the reconstruction, to 1: noise as large as the codebook's own spread (latent), every code "
        f"redrawn (codes), no row kept (model) (default {STRENGTH})",
    )
    group.add_argument(
        "--keep_rows", type=int, metavar="N", help="with --method model: rows of codes kept, in the place of --strength"
    )
    group.add_argument(
        "--images_per_input", type=job_flags.option("images"), default=1, metavar="N", help="variations (default 1)"
    )
    group.add_argument("--seed", type=job_flags.option("seed"), default=0, metavar="N", help="default 0")
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"{job_flags.MODEL_PLACES}: a VQGAN or, for --method model, a DALL·E BART (default: emoji, for tokens the "
        "one that made them)",
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN; default: in --model's folder")
    group.add_argument("--backend", choices=("torch", "vqgan-jax"), default="torch", help="default torch")
    job_flags.add_device_flags(group)
    job_flags.add_checkpoint_flags(group)
    job_flags.add_sampling_flags(parser.add_argument_group("drawing, with --method model"))
    group = parser.add_argument_group("images that are read; as for encode")
    group.add_argument(
        "--resize",
        choices=("center_crop", "pad", "squash", "none"),
        help="how a picture becomes the model's square (default center_crop)",
    )
    group.add_argument("--jpeg_scale", choices=("auto", "off"), help="off: decode JPEGs in full before resizing")
    group.add_argument("--max_image_bytes", type=job_flags.positive, metavar="N")
    group.add_argument("--max_image_pixels", type=job_flags.positive, metavar="N")
    group = parser.add_argument_group("pictures that are written")
    job_flags.add_picture_flags(group)
    group.add_argument("--keep_tokens", action="store_true", help="also write the codes of each picture, as encoding")
    job_flags.add_run_flags(parser, shard_of="rows of the input", batch_of="pictures")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    check_flags(args)
    job_flags.check_places(args, "codes" if args.code_column else "images")
    from pipelines.vary_job import vary  # torch and Beam take seconds: not for --help

    return vary(args, beam_args)


def check_flags(args: argparse.Namespace) -> None:
    """Raise `UsageError` for flags that do not go with the method, or with each other."""
    drawn = args.method == "model"
    if not drawn:
        given = [name for name in (*SAMPLING, "keep_rows") if getattr(args, name) is not None]
        if given:
            raise UsageError(
                f"--{given[0]} has a meaning with --method model only; leave it out, or choose that method"
            )
    if args.keep_rows is not None and args.strength is not None:
        raise UsageError("--keep_rows and --strength both say how much is drawn anew: give one of them")
    if args.backend != "torch" and args.method != "codes":
        raise UsageError(
            f"--method {args.method} needs --backend torch, since {args.backend} gives codes only; --method codes goes "
            "with both"
        )
