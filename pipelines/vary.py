"""`vqbeam vary`: images or their tokens -> variations of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from models.bart.options import SAMPLING, Drawing
from pipelines import flags
from pipelines.command import JobCommand
from pipelines.generate import ModelNames, drawing_of, open_models
from pipelines.request import LEAST_ROWS, InputFiles, JobOptions, Settings, Task, TokenizerChoice, tokenizer_provenance
from transforms.errors import UsageError
from transforms.images import ImageOptions, preprocessing_id
from transforms.inputs.request import Kind
from transforms.ledger.plan import Plan
from transforms.outputs.layout import ImageOutput

if TYPE_CHECKING:
    from models.image_tokenizer import TokenizerCheckpoint
    from transforms.work.vary import Variation
    from transforms.work.work import Work

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
        type=flags.share,
        metavar="S",
        help=f"from 0, the reconstruction, to 1: noise as large as the codebook's own spread (latent), every code "
        f"redrawn (codes), no row kept (model) (default {STRENGTH})",
    )
    group.add_argument(
        "--keep_rows", type=int, metavar="N", help="with --method model: rows of codes kept, instead of --strength"
    )
    group.add_argument(
        "--images_per_input", type=flags.option("images"), default=1, metavar="N", help="variations (default 1)"
    )
    group.add_argument("--seed", type=flags.option("seed"), default=0, metavar="N", help="default 0")
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"{flags.MODEL_NAMES}: a VQGAN or, for --method model, a DALL·E BART (default: emoji; for "
        "tokens, the model that made them)",
    )
    group.add_argument("--vqgan", metavar="NAME", help="the VQGAN; default: in --model's folder")
    flags.add_backend_flag(group)
    flags.add_device_flags(group)
    flags.add_checkpoint_flags(group)
    flags.add_sampling_flags(parser.add_argument_group("drawing, with --method model"))
    flags.add_image_flags(parser.add_argument_group("images that are read, as by encode"))
    group = parser.add_argument_group("images that are written")
    flags.add_output_image_flags(group)
    group.add_argument("--keep_tokens", action="store_true", help="also write each image's codes, as encoding")
    flags.add_run_flags(parser, shard_of="rows of the input", batch_of="images")


@dataclass(frozen=True)
class VaryOptions:
    """`image` has the fields of `ImageOptions` that were given, `sampling` those of `SAMPLING`. `job.input.kind` is
    "codes" if a column of codes was named; else `prepare` looks at the input. `strength` and `keep_rows` are None where
    they were left open."""

    job: JobOptions
    method: str
    strength: float | None
    keep_rows: int | None
    images_per_input: int
    seed: int
    model: str | None
    vqgan: str | None
    backend: str
    pixel_range: tuple[float, float] | None
    sampling: Drawing
    image: Mapping[str, Any]
    written: ImageOutput
    keep_tokens: bool
    allow_model_mismatch: bool

    @property
    def amount(self) -> float:
        return STRENGTH if self.strength is None else self.strength

    def rows_kept(self, grid: int) -> int:
        from models.vqgan.variations import kept_rows

        return kept_rows(self.amount, grid) if self.keep_rows is None else self.keep_rows


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
    if args.code_column and args.image_column:
        raise UsageError("--code_column and --image_column contradict each other: name one of them")
    return flags.fill(
        VaryOptions,
        args,
        job=flags.job_options(args, "codes" if args.code_column else "images"),
        sampling=sampling,
        image=flags.given_image_flags(args),
        written=flags.fill(ImageOutput, args),
    )


def prepare(chosen: VaryOptions, files: InputFiles) -> Task:
    """Tell images from tokens, and check that models, method and input go together.

    Raises `UsageError`, `CheckpointError` and `ConfigError`.
    """
    from pipelines.planned_models import tokenizer_model
    from transforms.work.vary import MOVED, WRITTEN, CodeNoise, Completion, LatentNoise, Vary

    kind = input_kind(chosen, files)
    job, written = replace(chosen.job, input=replace(chosen.job.input, kind=kind)), chosen.written
    names = ModelNames(model_name(chosen, kind, files), chosen.vqgan, None, chosen.pixel_range)
    choice = TokenizerChoice(names.painter, chosen.backend, chosen.pixel_range)
    drawn = open_models(names, job) if chosen.method == "model" else None
    drawing = drawing_of(drawn.bart, chosen.images_per_input, chosen.seed, chosen.sampling) if drawn else None
    vqgan = drawn.vqgan if drawn else choice.open(job.model_cache)
    check_vqgan(chosen, kind, vqgan, choice, files)
    image = ImageOptions(size=vqgan.spec.resolution, **chosen.image)
    fingerprint = fingerprint_of(chosen, kind, drawing, vqgan.spec.grid)
    if kind == "images":
        rows = {"max_image_bytes": image.max_image_bytes, "max_image_pixels": image.max_image_pixels}
        fingerprint |= {"preprocessing": preprocessing_id(image), "rows": rows}

    def work(plan: Plan, settings: Settings) -> Work:
        variation: Variation
        if drawn and drawing:
            generator = drawn.settings(plan, settings, job, drawing)
            model, variation = generator.vqgan, Completion(generator, chosen.rows_kept(vqgan.spec.grid))
        else:
            model = choice.settings(job.model_cache, settings)
            variation = (LatentNoise if chosen.method == "latent" else CodeNoise)(chosen.amount)
        amount = {name: str(fingerprint[name]) for name in ("strength", "keep_rows") if name in fingerprint}
        return Vary(
            model=model,
            variation=variation,
            options=drawing or {"images": chosen.images_per_input, "seed": chosen.seed},
            image=image,
            written=written,
            spec=vqgan.spec,
            about={"method": chosen.method} | amount | {"model": str(plan.settings["model"])},
            keep_tokens=chosen.keep_tokens,
            expected_codebook=None if kind == "images" or chosen.allow_model_mismatch else vqgan.codebook_id(),
        )

    def provenance(plan: Plan) -> dict[str, Any]:
        made = drawn.provenance("vary", plan) if drawn else tokenizer_provenance("vary", vqgan, plan)
        return made | fingerprint

    return Task(
        models=drawn.planned if drawn else (tokenizer_model(vqgan, names.painter),),
        fingerprint=fingerprint,
        input=replace(job.input, written=WRITTEN, moved=MOVED, caption_required=drawn is not None),
        inputs=files.listed,
        work=work,
        provenance=provenance,
        written=written,
        backend=chosen.backend,
        max_image_bytes=image.max_image_bytes,
        images_per_row=chosen.images_per_input,
        least_rows=1 if drawn else max(1, LEAST_ROWS // chosen.images_per_input),
        fit_batch=drawn is not None,
    )


def input_kind(chosen: VaryOptions, files: InputFiles) -> Kind:
    """Whether the input is images or tokens. Raises `UsageError` if it may be both, and for flags of the other."""
    kind = _kind(chosen, files)
    if kind == "codes":
        wrong = [*(["uri_schemes"] if chosen.job.input.uri_schemes else []), *chosen.image]
    else:
        wrong = ["allow_model_mismatch"] if chosen.allow_model_mismatch else []
    if wrong:
        what = "tokens, and no images" if kind == "codes" else "images, and no tokens"
        raise UsageError(f"--{wrong[0]} has no meaning here: the input is {what}; leave it out")
    return kind


def _kind(chosen: VaryOptions, files: InputFiles) -> Kind:
    """By the column that is named, else by those of the first file: tokens are Parquet with a column of codes and none
    of image bytes (paths of images do not count: tables of images have them beside codes)."""
    from transforms.inputs.columns import image_and_codes
    from transforms.inputs.formats.parquet import read_footer

    asked = chosen.job.input
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


def model_name(chosen: VaryOptions, kind: Kind, files: InputFiles) -> str:
    """The model that the flags name, else the one that made the tokens, else the embedded one. Raises `UsageError`."""
    from transforms.inputs.provenance import token_provenance

    named = chosen.model or (chosen.vqgan if chosen.method != "model" else None)
    if named or kind == "images":
        return named or "emoji"
    first = files.find().files[0].uri
    made_by = token_provenance(first)
    if made_by is None:
        raise UsageError(f"{first} does not say which model made its codes: name it with --model")
    return str(made_by["model_source"])


def check_vqgan(
    chosen: VaryOptions, kind: Kind, vqgan: TokenizerCheckpoint, choice: TokenizerChoice, files: InputFiles
) -> None:
    """Raise `ConfigError` or `UsageError` if the VQGAN cannot do what is asked of it."""
    from models.errors import ConfigError
    from transforms.inputs.provenance import mismatch, token_provenance

    if kind == "images" and not vqgan.spec.has_encoder:
        raise ConfigError(
            f"{choice.model} ({vqgan.spec.format}) holds a decoder only: it can vary tokens, not images. Encode them "
            "with the model that it is the decoder of"
        )
    if chosen.method == "latent" and not vqgan.spec.has_latents:
        raise ConfigError(
            f"--method latent needs latents, and {choice.model} ({vqgan.spec.format}) gives codes only; "
            "choose --method codes"
        )
    if kind == "codes" and chosen.method == "latent" and not vqgan.spec.nearest:
        raise ConfigError(
            f"--method latent: the codes of {choice.model} are no points among its latents; give the images "
            "themselves, or choose --method codes"
        )
    grid = vqgan.spec.grid
    if chosen.keep_rows is not None and not 0 <= chosen.keep_rows <= grid:
        raise UsageError(
            f"--keep_rows {chosen.keep_rows}: the model has {grid} rows of codes, so 0 to {grid} can be kept"
        )
    if kind == "codes" and not chosen.allow_model_mismatch:
        first = files.find().files[0].uri
        problem = mismatch(first, token_provenance(first), vqgan.codebook_id())
        if problem:
            raise UsageError(problem)


def fingerprint_of(chosen: VaryOptions, kind: Kind, drawing: Drawing | None, grid: int) -> dict[str, Any]:
    """The choices that decide the output, besides the models and the rows."""
    from models.uniforms import UNIFORMS_VERSION
    from models.vqgan.variations import VARIATIONS_VERSION

    return {
        "input_kind": kind,
        "method": chosen.method,
        "images_per_input": chosen.images_per_input,
        "seed": chosen.seed,
        "uniforms_version": UNIFORMS_VERSION,
        "variations_version": VARIATIONS_VERSION,
        **asdict(chosen.written),
        "keep_tokens": chosen.keep_tokens,
        **({} if chosen.keep_rows is not None else {"strength": chosen.amount}),
        **({"keep_rows": chosen.rows_kept(grid), "drawing": dict(drawing)} if drawing else {}),
    }


COMMAND = JobCommand(
    name="vary",
    description="Make variations of images, or of the images that tokens stand for, by noise on their codes or by "
    "having a DALL·E mini model redraw a part. Strength 0 gives their reconstructions. Resumes by itself.",
    add_flags=add_flags,
    options=options,
    prepare=prepare,
    writes_images=True,
    counts="images",
)
