"""`vqbeam decode`: VQGAN tokens in Parquet -> images."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines import flags
from pipelines.command import JobCommand
from pipelines.request import InputFiles, JobOptions, Settings, Task, TokenizerChoice, tokenizer_provenance
from transforms.errors import UsageError
from transforms.ledger.plan import Plan
from transforms.outputs.layout import ImageOutput

if TYPE_CHECKING:
    from transforms.work.work import Work


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "codes")
    flags.add_output_flags(parser)
    flags.add_model_flags(parser, default=None)
    group = parser.add_argument_group("images")
    flags.add_output_image_flags(group)
    group.add_argument(
        "--allow_model_mismatch", action="store_true", help="decode codes that another model made: mostly nonsense"
    )
    flags.add_run_flags(parser)


@dataclass(frozen=True)
class DecodeOptions:
    job: JobOptions
    tokenizer: TokenizerChoice
    written: ImageOutput
    allow_model_mismatch: bool


def options(args: argparse.Namespace) -> DecodeOptions:
    return flags.fill(
        DecodeOptions,
        args,
        job=flags.job_options(args, "codes"),
        tokenizer=flags.fill(TokenizerChoice, args),
        written=flags.fill(ImageOutput, args),
    )


def prepare(chosen: DecodeOptions, files: InputFiles) -> Task:
    """Find the model that made the tokens; another is refused. Raises `UsageError` and `CheckpointError`."""
    from pipelines.planned_models import tokenizer_model
    from transforms.inputs.provenance import mismatch, token_provenance
    from transforms.work.decode import MOVED, WRITTEN, Decode

    job, written = chosen.job, chosen.written
    first = files.find().files[0].uri
    made_by = token_provenance(first)
    name = chosen.tokenizer.model or (str(made_by["model_source"]) if made_by else None)
    if name is None:
        raise UsageError(f"{first} does not say which model made its codes: name it with --model")
    tokenizer = replace(chosen.tokenizer, model=name)
    checkpoint = tokenizer.open(job.model_cache)
    problem = mismatch(first, made_by, checkpoint.codebook_id())
    if problem and not chosen.allow_model_mismatch:
        raise UsageError(problem)

    def work(plan: Plan, settings: Settings) -> Work:
        return Decode(
            model=tokenizer.settings(job.model_cache, settings),
            written=written,
            spec=checkpoint.spec,
            expected_codebook=None if chosen.allow_model_mismatch else checkpoint.codebook_id(),
        )

    def provenance(plan: Plan) -> dict[str, Any]:
        return tokenizer_provenance("decode", checkpoint, plan) | asdict(written)

    return Task(
        models=(tokenizer_model(checkpoint, name),),
        fingerprint=asdict(written),
        input=replace(job.input, written=WRITTEN, moved=MOVED),
        inputs=files.listed,
        work=work,
        provenance=provenance,
        written=written,
        backend=tokenizer.backend,
    )


COMMAND = JobCommand(
    name="decode",
    description="Turn VQGAN tokens back into images: files, WebDataset tars or Parquet. Resumes by itself.",
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    schema_version=2,
)
