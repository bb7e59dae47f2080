"""`vqbeam generate`: prompts -> pictures."""

from __future__ import annotations

import argparse

from pipelines import job_flags

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
    group.add_argument("--clip", metavar="NAME", help="a CLIP that scores and ranks the pictures of each prompt")
    job_flags.add_device_flags(group, draws=True)
    job_flags.add_checkpoint_flags(group)
    group = parser.add_argument_group(
        "drawing; rows of the input may have columns of their own for each of the last six"
    )
    group.add_argument("--keep_best", type=job_flags.positive, metavar="K", help="of each prompt, by --clip")
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
    job_flags.check_input(args, "prompts")
    from pipelines.generate_job import generate  # torch and Beam take seconds: not for --help

    return generate(args, beam_args)
