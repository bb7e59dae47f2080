"""`vqbeam generate`: prompts -> pictures."""

from __future__ import annotations

import argparse

from pipelines import flags as job_flags
from transforms.errors import UsageError

DESCRIPTION = "Draw pictures for prompts with a DALL·E mini model, ranked by a CLIP if you like. Resumes by itself."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job_flags.add_input_flags(parser, "prompts")
    job_flags.add_output_flags(parser)
    group = parser.add_argument_group("models")
    group.add_argument(
        "--model",
        default="emoji",
        metavar="NAME",
        help=f"of the DALL·E BART: {job_flags.MODEL_PLACES} (default emoji)",
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN that paints its codes; default: in --model's folder")
    group.add_argument(
        "--clip",
        metavar="NAME",
        help="a CLIP that scores and ranks the pictures of each prompt; named as --model, emoji is built in",
    )
    job_flags.add_device_flags(group, draws=True)
    job_flags.add_checkpoint_flags(group)
    group = parser.add_argument_group(
        "drawing; rows of the input may have columns of their own for each of the last six"
    )
    group.add_argument(
        "--keep_best", type=job_flags.positive, metavar="K", help="keep the K best pictures of each prompt, by --clip"
    )
    group.add_argument(
        "--images_per_prompt", type=job_flags.option("images"), default=1, metavar="N", help="column images (default 1)"
    )
    group.add_argument("--seed", type=job_flags.option("seed"), default=0, metavar="N", help="default 0")
    job_flags.add_sampling_flags(group)
    group = parser.add_argument_group("pictures")
    job_flags.add_picture_flags(group, caption="their prompts")
    group.add_argument("--keep_tokens", action="store_true", help="also write the codes of each picture, as encoding")
    job_flags.add_run_flags(parser, shard_of="prompts", batch_of="pictures")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    check_flags(args)
    job_flags.check_places(args, "prompts")
    from pipelines.generate_job import generate  # torch and Beam take seconds: not for --help

    return generate(args, beam_args)


def check_flags(args: argparse.Namespace) -> None:
    """Raise `UsageError` for flags that do not go together."""
    if not (args.input or args.prompt):
        raise UsageError("nothing to draw: give --input with files of prompts, or --prompt with the prompts themselves")
    if args.keep_best is not None:
        if args.clip is None:
            raise UsageError(
                "--keep_best needs --clip, which tells what is best: --clip emoji, or a folder with a CLIP"
            )
        if args.prompt and args.keep_best > args.images_per_prompt:  # rows of files may ask for more themselves
            raise UsageError(
                f"--keep_best {args.keep_best} of --images_per_prompt {args.images_per_prompt}: there are not so many"
            )
