"""`vqbeam vary`: images or their tokens -> variations of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.bart.options import SAMPLING, Drawing
from models.image_tokenizer import PixelRange, TokenizerCheckpoint
from pipelines import flags, image_reading, output_size
from pipelines.command import JobCommand
from pipelines.flag_values import option, share
from pipelines.generate import open_models
from pipelines.planned_models import DECODE, ENCODE, tokenizer_model
from pipelines.request import (
    InputFiles,
    JobOptions,
    Settings,
    Task,
    TokenizerChoice,
    check_decoder,
    tokenizer_provenance,
)
from transforms.errors import UsageError
from transforms.image_options import image_options, preprocessing_id
from transforms.inputs.request import InputSchema, Kind
from transforms.ledger.plan import Plan
from transforms.ledger.types import Shard
from transforms.outputs.contact_sheet import Originals
from transforms.outputs.layout import ImageOutput

METHODS = ("latent", "codes", "model")
STRENGTH = 0.3


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "images")
    group = parser.add_argument_group("tokens as input: Parquet with a column of codes and none of image bytes")
    group.add_argument("--code_column", metavar="NAME", help="default: guessed (encoding, codes, ...)")
    group.add_argument(
        "--allow_model_mismatch", action="store_true", help="vary codes that another model made: mostly nonsense"
    )
    flags.add_output_flags(parser)
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
        type=share,
        metavar="S",
        help=f"from 0, the reconstruction, to 1: noise as large as the codebook's own spread (latent), every code "
        f"redrawn (codes), no row kept (model) (default {STRENGTH})",
    )
    group.add_argument(
        "--keep_rows", type=int, metavar="N", help="with --method model: rows of codes kept, instead of --strength"
    )
    group.add_argument(
        "--images_per_input", type=option("images"), default=1, metavar="N", help="variations (default 1)"
    )
    group.add_argument("--seed", type=option("seed"), default=0, metavar="N", help="default 0")
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"{flags.MODEL_NAMES}: a VQGAN or, for --method model, a DALL·E BART (default: emoji; for "
        "tokens, the model that made them)",
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN; default: in --model's folder")
    flags.add_model_flags(group, "tokenizer", "backend", "device", "dtype", *flags.TOKENIZER_OPTIONS, "model_cache")
    flags.add_sampling_flags(parser.add_argument_group("drawing, with --method model"))
    flags.add_image_flags(parser.add_argument_group("images that are read, as by encode"))
    group = parser.add_argument_group("images that are written")
    flags.add_output_image_flags(group)
    group.add_argument("--keep_tokens", action="store_true", help="also write each image's codes, as encoding")
    flags.add_run_flags(parser, shard_of="rows of the input", batch_of="images")


@dataclass(frozen=True)
class VaryOptions:
    """`image` has the fields of `ImageOptions` that were given, `sampling` those of `SAMPLING`. The kind of
    `job.files.request` is "codes" if a column of codes was named; else `prepare` looks at the input. `strength` counts
    unless `keep_rows` was given."""

    job: JobOptions
    method: str
    strength: float
    keep_rows: int | None
    images_per_input: int
    seed: int
    model: str | None
    vqgan: str | None
    backend: str
    pixel_range: PixelRange | None
    image_size: int | None
    weights: str | None
    tokenizer: str | None
    sampling: Drawing
    image: Mapping[str, Any]
    written: ImageOutput
    keep_tokens: bool
    allow_model_mismatch: bool


def options(args: argparse.Namespace) -> VaryOptions:
    sampling = flags.given(args, *SAMPLING)
    without_meaning = [*sampling, *flags.given(args, "keep_rows")]
    if without_meaning and args.method != "model":
        raise UsageError(f"--{without_meaning[0]} works with --method model only; leave it out, or choose that method")
    if args.keep_rows is not None and args.strength is not None:
        raise UsageError("--keep_rows and --strength both set how much is redrawn: give one of them")
    if args.backend != "torch" and args.method != "codes":
        raise UsageError(
            f"--method {args.method} needs --backend torch, since {args.backend} gives codes only; --method codes goes "
            "with both"
        )
    said = flags.given(args, "image_size", "weights", "tokenizer")
    if args.method == "model" and said:
        raise UsageError(f"--{next(iter(said))} has no meaning with --method model, whose VQGAN says it; leave it out")
    if args.code_column and args.image_column:
        raise UsageError("--code_column and --image_column contradict each other: name one of them")
    return flags.fill(
        VaryOptions,
        args,
        job=flags.job_options(args, "codes" if args.code_column else "images"),
        strength=STRENGTH if args.strength is None else args.strength,
        sampling=sampling,
        image=flags.given_image_flags(args),
        written=flags.fill(ImageOutput, args),
    )


def prepare(chosen: VaryOptions) -> Task:
    """Tell images from tokens, and check that models, method and input go together.

    Raises `UsageError`, `CheckpointError` and `ConfigError`.
    """
    from models.uniforms import UNIFORMS_VERSION
    from models.vqgan.variations import VARIATIONS_VERSION, kept_rows
    from transforms.work.vary import MOVED, WRITTEN, CodeNoise, Completion, LatentNoise, Variation, Vary

    job, written, images = chosen.job, chosen.written, chosen.images_per_input
    kind = input_kind(chosen)
    if kind == "codes" and "grids" in (job.files.made_by or {}):
        raise UsageError(f"{job.files.find().files[0].uri} has grids that differ by row, which only decode takes")
    named = chosen.model or (chosen.vqgan if chosen.method != "model" else None)
    name = named or ("emoji" if kind == "images" else job.files.model())
    painter = TokenizerChoice(
        model=chosen.vqgan or name,
        model_cache=job.model_cache,
        pixel_range=chosen.pixel_range,
        backend=chosen.backend,
        image_size=chosen.image_size,
        weights=chosen.weights,
        tokenizer=chosen.tokenizer,
    )
    if kind == "codes" and not chosen.allow_model_mismatch:
        painter = painter.made(job.files.made_by)
    drawn = open_models(job, name, chosen.vqgan, None, chosen.pixel_range) if chosen.method == "model" else None
    vqgan = drawn.vqgan if drawn else painter.open()
    check_vqgan(chosen, kind, chosen.vqgan or name, vqgan)
    drawing = drawn.drawing(images, chosen.seed, chosen.sampling) if drawn else {"images": images, "seed": chosen.seed}
    keep_rows = kept_rows(chosen.strength, vqgan.spec.grid) if chosen.keep_rows is None else chosen.keep_rows
    image = image_options(vqgan.spec.resolution, vqgan.spec.preprocessing, chosen.image)
    amount = {"strength": chosen.strength} if chosen.keep_rows is None else {}
    fingerprint: dict[str, Any] = {
        "input_kind": kind,
        "method": chosen.method,
        "images_per_input": images,
        "seed": chosen.seed,
        "uniforms_version": UNIFORMS_VERSION,
        "variations_version": VARIATIONS_VERSION,
        **asdict(written),
        "keep_tokens": chosen.keep_tokens,
    }
    if drawn:
        amount["keep_rows"] = keep_rows
        fingerprint["drawing"] = dict(drawing)
    if kind == "images":
        fingerprint["preprocessing"] = preprocessing_id(image) | image_reading.icc_choice(chosen.image, image)
        fingerprint["rows"] = image_reading.rows_choice(image, chosen.image, "max_image_bytes", "max_image_pixels")
    fingerprint |= amount
    shown = tuple(fingerprint)
    fingerprint["image_size"] = vqgan.choices.get("image_size", 0)

    passes = DECODE + (ENCODE / images if kind == "images" else 0.0)

    def work(plan: Plan, settings: Settings) -> Vary:
        variation: Variation
        if drawn:
            generator = drawn.settings(plan, settings, drawing)
            model, variation = generator.vqgan, Completion(generator, keep_rows)
        else:
            model = painter.settings(settings)
            variation = (LatentNoise if chosen.method == "latent" else CodeNoise)(chosen.strength)
        texts = {name: str(value) for name, value in amount.items()}
        return Vary(
            model=model,
            variation=variation,
            options=drawing,
            image=image_reading.as_planned(image, plan),
            written=written,
            spec=vqgan.spec,
            about={"method": chosen.method} | texts | {"model": str(plan.settings["model"])},
            keep_tokens=chosen.keep_tokens,
            expected_codebook=None if kind == "images" or chosen.allow_model_mismatch else vqgan.codebook_id(),
        )

    def provenance(plan: Plan) -> dict[str, Any]:
        own = {name: plan.fingerprint[name] for name in shown}
        return (drawn.provenance(plan) if drawn else tokenizer_provenance(vqgan, plan)) | own

    def made_from(plan: Plan, settings: Settings, shards: Sequence[Shard]) -> Originals:
        from transforms.work import originals

        schema = InputSchema.from_json(plan.schema)
        return originals.Originals(work(plan, settings), schema, shards, image.max_image_bytes)

    return Task(
        models=drawn.planned if drawn else (tokenizer_model(vqgan, chosen.vqgan or name, passes=passes),),
        fingerprint=fingerprint,
        open=image_reading.OPEN if kind == "images" else {},
        input=replace(job.files.request, kind=kind, written=WRITTEN, moved=MOVED, caption_required=drawn is not None),
        work=work,
        provenance=provenance,
        written=written,
        originals=made_from if kind == "images" or job.local else None,  # to paint codes, models must be here
        backend=chosen.backend,
        max_image_bytes=image.max_image_bytes,
        tokenizer=vqgan.spec if kind == "codes" else None,
        drawn=drawn.bart.config if drawn else None,
        images_per_row=images,
        pixels=vqgan.spec.resolution**2,
        row_bytes=output_size.of_image(vqgan.spec, written)
        + (output_size.of_codes(vqgan.spec) if chosen.keep_tokens else 0.0),
        fit_batch=drawn is not None,
    )


def input_kind(chosen: VaryOptions) -> Kind:
    """Whether the input is images or tokens. Raises `UsageError` if it may be both, and for flags of the other."""
    kind = _kind(chosen.job.files)
    if kind == "codes":
        wrong = [*(["uri_schemes"] if chosen.job.files.request.uri_schemes else []), *chosen.image]
    else:
        wrong = ["allow_model_mismatch"] if chosen.allow_model_mismatch else []
    if wrong:
        what = "tokens, and no images" if kind == "codes" else "images, and no tokens"
        raise UsageError(f"--{wrong[0]} has no meaning here: the input is {what}; leave it out")
    return kind


def _kind(files: InputFiles) -> Kind:
    """By the column that is named, else by those of the first file: tokens are Parquet with a column of codes and none
    of image bytes (paths of images do not count: tables of images have them beside codes)."""
    from transforms.inputs.columns import image_and_codes
    from transforms.inputs.formats.parquet import read_footer

    asked = files.request
    if asked.kind == "codes" or asked.image_column:
        return asked.kind
    inputs = files.find()
    if inputs.format != "parquet":
        return "images"
    first = inputs.files[0].uri
    footer = read_footer(first)
    if footer is None:
        return "images"
    image, codes = image_and_codes(footer.columns, first)
    if codes and image and codes != image:
        raise UsageError(
            f"{first} has images ({image}) and tokens ({codes}): say which to vary with --image_column {image} or "
            f"--code_column {codes}"
        )
    return "codes" if codes else "images"


def check_vqgan(chosen: VaryOptions, kind: Kind, name: str, vqgan: TokenizerCheckpoint) -> None:
    """Raise `ConfigError` or `UsageError` if the VQGAN cannot do what is asked of it."""
    from models.errors import ConfigError

    check_decoder(name, vqgan.spec)
    if kind == "images" and not vqgan.spec.has_encoder:
        raise ConfigError(
            f"{name} ({vqgan.spec.format}) holds a decoder only: it can vary tokens, not images. Encode them with the "
            "model that it is the decoder of"
        )
    if chosen.method == "latent" and not vqgan.spec.has_latents:
        raise ConfigError(
            f"--method latent needs latents, and {name} ({vqgan.spec.format}) gives codes only; choose --method codes"
        )
    if kind == "codes" and chosen.method == "latent" and not vqgan.spec.nearest:
        raise ConfigError(
            f"--method latent: the codes of {name} are no points among its latents; give the images themselves, or "
            "choose --method codes"
        )
    grid = vqgan.spec.grid
    if chosen.keep_rows is not None and not 0 <= chosen.keep_rows <= grid:
        raise UsageError(
            f"--keep_rows {chosen.keep_rows}: the model has {grid} rows of codes, so 0 to {grid} can be kept"
        )
    if kind == "codes" and not chosen.allow_model_mismatch:
        chosen.job.files.check_codebook(vqgan.codebook_id())


COMMAND = JobCommand(
    name="vary",
    description="Make variations of images, or of the images that tokens stand for, by noise on their codes or by "
    "having a DALL·E mini model redraw a part. Strength 0 gives their reconstructions. Resumes by itself.",
    examples=(
        "vqbeam vary --input photos --output varied --strength 0.4",
        "vqbeam vary --input tokens/data --output redrawn --method codes",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    counts="images",
)
