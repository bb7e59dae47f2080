"""`vqbeam decode`: VQGAN tokens in Parquet -> images."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace

from pipelines import flags, output_size
from pipelines.command import JobCommand
from pipelines.planned_models import DECODE, tokenizer_model
from pipelines.request import JobOptions, Task, TokenizerChoice, check_decoder, tokenizer_provenance
from transforms.batch import GRID_H, GRID_W
from transforms.errors import UsageError
from transforms.inputs.grid import has_grids
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import ImageOutput


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "codes")
    flags.add_output_flags(parser)
    flags.add_tokenizer_flags(parser, default=None)
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


def prepare(chosen: DecodeOptions) -> Task:
    """Find the model that made the tokens; another is refused. Raises `UsageError` and `CheckpointError`."""
    from transforms.work.decode import MOVED, WRITTEN, Decode

    job, written = chosen.job, chosen.written
    name = chosen.tokenizer.model or job.files.model()
    tokenizer = replace(chosen.tokenizer, model=name)
    if not chosen.allow_model_mismatch:
        tokenizer = tokenizer.made(job.files.made_by)
    checkpoint = tokenizer.open()
    check_decoder(name, checkpoint.spec)
    any_grid = checkpoint.spec.any_grid and tokenizer.backend == "torch"
    asked = replace(job.files.request, written=WRITTEN, moved=MOVED)
    if "grids" in (job.files.made_by or {}):
        first = job.files.find().files[0].uri
        if not any_grid:
            who = f"{name} ({checkpoint.spec.format}, backend {tokenizer.backend})"
            raise UsageError(f"{first} has grids that differ by row, which {who} does not take")
        if {GRID_H, GRID_W} & set(dict(asked.rename)):
            raise UsageError(
                f"{first}: {GRID_H} and {GRID_W} say the grid of each row; leave them as they are", "rename"
            )
        if asked.columns is not None:
            asked = replace(asked, columns=tuple(dict.fromkeys((*asked.columns, GRID_H, GRID_W))))
    expected = None if chosen.allow_model_mismatch else checkpoint.codebook_id()
    if expected:
        job.files.check_codebook(expected)
    return Task(
        models=(tokenizer_model(checkpoint, name, passes=DECODE),),
        fingerprint=asdict(written) | {"image_size": checkpoint.choices.get("image_size", 0)},
        input=asked,
        work=lambda plan, settings: Decode(
            model=tokenizer.settings(settings),
            written=written,
            spec=checkpoint.spec,
            expected_codebook=expected,
            by_row=any_grid and has_grids(InputSchema.from_json(plan.schema).passthrough),
        ),
        provenance=lambda plan: tokenizer_provenance(checkpoint, plan) | asdict(written),
        written=written,
        backend=tokenizer.backend,
        tokenizer=checkpoint.spec,
        pixels=checkpoint.spec.resolution**2,
        row_bytes=output_size.of_image(checkpoint.spec, written),
    )


COMMAND = JobCommand(
    name="decode",
    description="Turn VQGAN tokens back into images: files, WebDataset tars or Parquet. Resumes by itself.",
    examples=(
        "vqbeam decode --input tokens/data --output images --contact_sheet",
        "vqbeam decode --input tokens/data --output webp --image_format webp",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    schema_version=2,
)
