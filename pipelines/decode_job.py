"""The job behind `vqbeam decode`: finds the model that made the tokens, refuses another, and writes pictures."""

from __future__ import annotations

import argparse
from dataclasses import replace

from models import find
from pipelines import request as requests
from pipelines.flags import inputs_of
from pipelines.planned_models import tokenizer_model
from pipelines.run import default_workers, run_job
from transforms import storage
from transforms.batch import IMAGE, IMAGE_PATH
from transforms.engine.job import Job
from transforms.errors import UsageError
from transforms.inputs import InputSchema
from transforms.inputs.provenance import mismatch, token_provenance
from transforms.ledger.folder import OutputFolder
from transforms.ledger.plan import Plan
from transforms.outputs.contact_sheet import write_contact_sheet
from transforms.outputs.layout import ImageOutput
from transforms.work.decode import Decode


def decode(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan or resume, and work; returns the exit code."""
    cache = args.model_cache
    first = inputs_of(args, "codes").files[0].uri
    made_by = token_provenance(first)
    model = args.model or (str(made_by["model_source"]) if made_by else None)
    if model is None:
        raise UsageError(f"{first} does not say which model made its codes: name it with --model")
    checkpoint = find(model, cache, args.pixel_range).tokenizer
    problem = mismatch(first, made_by, checkpoint.codebook_id())
    if problem and not args.allow_model_mismatch:
        raise UsageError(problem)
    written = ImageOutput(args.image_format, args.image_layout)
    options = {"image_format": written.image_format, "image_layout": written.image_layout}
    models = (tokenizer_model(checkpoint, model),)
    request = requests.plan_request(args, "decode", "codes", models, options, beam_args, backend=args.backend)
    request = replace(request, input=replace(request.input, moved=(IMAGE_PATH, IMAGE)))

    def make_job(plan: Plan) -> Job:
        return Job(
            work=Decode(
                model=requests.model_settings(args, model, plan, cache),
                written=written,
                codes_per_image=checkpoint.spec.codes_per_image,
                codebook_size=checkpoint.spec.codebook_size,
                expected_codebook=None if args.allow_model_mismatch else checkpoint.codebook_id(),
            ),
            output=request.output,
            schema=InputSchema.from_json(plan.schema),
            provenance=requests.provenance("decode", checkpoint, plan) | options,
            version=requests.vqbeam_version(),
            max_error_rate=args.max_error_rate,
            decode_threads=requests.threads(args, plan),
            processes=args.workers or int(plan.settings["workers"] or 0) or default_workers(args.device),
        )

    sheet, folder = OutputFolder(request.output).contact_sheet, written.layout.images_folder
    look = sheet if args.contact_sheet else storage.join(request.output, folder)
    code = run_job(request, requests.run_options(args, "images", look), make_job, beam_args)
    if args.contact_sheet and not args.dry_run and code in (0, 1):
        write_contact_sheet(request.output, written.layout)
    return code
