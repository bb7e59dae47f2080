"""`vqbeam decode`: VQGAN tokens in Parquet -> pictures."""

from __future__ import annotations

import argparse

from pipelines import flags as job_flags

DESCRIPTION = "Turn VQGAN tokens back into pictures: files, WebDataset tars or Parquet. Resumes by itself."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job_flags.add_input_flags(parser, "codes")
    job_flags.add_output_flags(parser)
    job_flags.add_model_flags(parser, default=None)
    group = parser.add_argument_group("pictures")
    job_flags.add_picture_flags(group)
    group.add_argument(
        "--allow_model_mismatch", action="store_true", help="decode codes that another model made: mostly nonsense"
    )
    job_flags.add_run_flags(parser)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    job_flags.check_places(args, "codes")
    from pipelines.decode_job import decode  # torch and Beam take seconds: not for --help

    return decode(args, beam_args)
