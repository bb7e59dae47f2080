"""`vqbeam evaluate`: images -> how near a tokenizer's reconstructions are to them, for each and in total."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines import flags
from pipelines.command import JobCommand
from pipelines.evaluating import evaluation
from pipelines.request import JobOptions, Task, TokenizerChoice
from transforms.errors import UsageError

OF_A_FOLDER = ("overwrite", "extend", "retry_rejected", "report")  # flags that mean nothing without one


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "images")
    flags.add_output_flags(parser, required=False)
    flags.add_tokenizers_flags(parser, default="emoji")
    group = parser.add_argument_group("images")
    flags.add_image_flags(group)
    flags.add_run_flags(parser)


@dataclass(frozen=True)
class EvaluateOptions:
    """`image` has the fields of `ImageOptions` that were given."""

    job: JobOptions
    tokenizers: tuple[TokenizerChoice, ...]
    image: Mapping[str, Any]
    clip: str | None


def options(args: argparse.Namespace) -> EvaluateOptions:
    """Raises `UsageError`. Without an output folder rows go into a temporary one, which is the launcher's to remove."""
    kept = args.output is not None
    if not kept:
        for name in OF_A_FOLDER:
            if getattr(args, name):
                raise UsageError("needs --output, the folder that it is about", name)
        args.output = tempfile.mkdtemp(prefix="evaluation-")
    tokenizers = tuple(replace(flags.fill(TokenizerChoice, args), **said) for said in flags.models_named(args))
    names = tuple(str(tokenizer.model) for tokenizer in tokenizers)
    job = replace(flags.job_options(args, "images"), model_names=(*names, *filter(None, [args.clip])), kept=kept)
    return flags.fill(EvaluateOptions, args, job=job, tokenizers=tokenizers, image=flags.given_image_flags(args))


def prepare(chosen: EvaluateOptions) -> Task:
    """Raises `CheckpointError` and `ConfigError`."""
    return evaluation(chosen.job, chosen.tokenizers, chosen.image, chosen.clip, require_caption=False)


COMMAND = JobCommand(
    name="evaluate",
    description="Measure how near the reconstructions of a tokenizer are to images, or of several on the same images: "
    "PSNR, SSIM, the codes in use and, with --clip, the cosine and CMMD. Resumes by itself.",
    examples=(
        "vqbeam evaluate --input photos --model emoji",
        "vqbeam evaluate --input photos --clip emoji --output measured",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
)
