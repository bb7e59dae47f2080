"""`vqbeam encode`: images with captions -> VQGAN tokens in Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.image_tokenizer import TokenizerSpec
from pipelines import flags, image_reading, output_size
from pipelines.command import JobCommand
from pipelines.evaluating import evaluation
from pipelines.flag_values import numbers, option
from pipelines.planned_models import tokenizer_model
from pipelines.request import JobOptions, Task, TokenizerChoice, tokenizer_provenance
from transforms import storage
from transforms.errors import UsageError
from transforms.image_options import image_options, preprocessing_id
from transforms.target_sizes import TargetSizes
from transforms.views import views_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "images")
    flags.add_output_flags(parser)
    flags.add_tokenizer_flags(parser, default="emoji")
    group = parser.add_argument_group("images")
    flags.add_image_flags(group, by_row=True)
    group.add_argument(
        "--views",
        metavar="VIEWS",
        help="a row for each view of an image: center; flip, with its mirror image; ten_crop, LlamaGen's; or random:N "
        "(default: one row an image)",
    )
    group.add_argument(
        "--crop_scale",
        type=numbers,
        metavar="SCALE",
        help="ten_crop: how much larger than a crop the image is made (default 1.1); random: LOW,HIGH, shares of its "
        "area (default 0.2,1)",
    )
    group.add_argument("--seed", type=option("seed"), metavar="N", help="decides random views (default 0)")
    group.add_argument("--min_image_size", **flags.COUNT, help="filter: shortest side in pixels")
    group.add_argument("--max_aspect_ratio", type=float, metavar="R", help="filter: long side / short side")
    group.add_argument("--require_caption", action="store_true", help="reject rows without a caption")
    group = parser.add_argument_group("measures")
    group.add_argument(
        "--evaluate",
        action="store_true",
        help="also decode, and measure how near that is to the image, as evaluate does",
    )
    flags.add_measuring_clip_flag(group)
    flags.add_run_flags(parser)


@dataclass(frozen=True)
class EncodeOptions:
    """`image` has the fields of `ImageOptions` that were given; `size` comes from the model."""

    job: JobOptions
    tokenizer: TokenizerChoice
    image: Mapping[str, Any]
    require_caption: bool
    buckets: tuple[tuple[int, int], ...] | None = None
    any_size: bool = False
    views: str | None = None
    crop_scale: tuple[float, ...] | None = None
    seed: int | None = None
    evaluate: bool = False
    clip: str | None = None


def options(args: argparse.Namespace) -> EncodeOptions:
    alone = flags.given(args, "crop_scale", "seed")
    if alone and args.views is None:
        raise UsageError(f"--{next(iter(alone))} is of --views; give that, or leave it out")
    if args.clip is not None and not args.evaluate:
        raise UsageError("--clip is of --evaluate; give that, or leave it out")
    if args.evaluate and args.views is not None:
        raise UsageError("--evaluate measures whole images: leave --views out, or encode the views by themselves")
    if args.evaluate and (args.any_size or args.buckets or str(args.resize).startswith(("bucket", "area"))):
        raise UsageError("--evaluate measures the model's squares: leave out what gives grids that differ by row")
    image = flags.given_image_flags(args) | flags.given(args, "min_image_size", "max_aspect_ratio")
    job, tokenizer = flags.job_options(args, "images"), flags.fill(TokenizerChoice, args)
    return flags.fill(EncodeOptions, args, job=job, tokenizer=tokenizer, image=image)


def target_sizes(chosen: EncodeOptions, spec: TokenizerSpec) -> TargetSizes | None:
    """The sizes of images that differ by row; None for the model's. Raises `UsageError`."""
    rule, _, area = str(chosen.image.get("resize")).partition(":")
    if (rule == "bucket") != bool(chosen.buckets):
        raise UsageError("--resize bucket and --buckets WxH,... go together: give both, or none")
    if chosen.any_size and rule != "none":
        raise UsageError("--any_size goes with --resize none, which leaves images as they are: give both, or none")
    if not (chosen.buckets or area or chosen.any_size):
        return None
    if not spec.any_grid or chosen.tokenizer.backend != "torch":
        who = chosen.tokenizer.backend if spec.any_grid else f"{chosen.tokenizer.model} ({spec.format})"
        raise UsageError(f"--resize {chosen.image['resize']}: {who} takes images of its own size only")
    return TargetSizes(spec.factor, chosen.buckets or (), int(area or 0))


def prepare(chosen: EncodeOptions) -> Task:
    """Raises `CheckpointError` and `ConfigError`."""
    from models.errors import ConfigError
    from transforms.work.encode import OF_GRIDS, OF_VIEWS, WRITTEN, Encode

    if chosen.evaluate:
        task = evaluation(chosen.job, [chosen.tokenizer], chosen.image, chosen.clip, chosen.require_caption)
        return replace(task, fingerprint={**task.fingerprint, "views": "off", "grids": "one", "evaluate": True})
    job, name = chosen.job, str(chosen.tokenizer.model)
    checkpoint = chosen.tokenizer.open()
    if not checkpoint.spec.has_encoder:
        raise ConfigError(f"--model {name} ({checkpoint.spec.format}) holds a decoder only: it can decode, not encode")
    sizes = target_sizes(chosen, checkpoint.spec)
    given = {**chosen.image, **({"by_row": sizes} if sizes else {})}
    if sizes and sizes.area:
        given["resize"] = "area"
    image = image_options(checkpoint.spec.resolution, checkpoint.spec.preprocessing, given)
    views = None if chosen.views is None else views_of(chosen.views, image, chosen.crop_scale, chosen.seed)
    by_row = {"views": views.to_json()} if views else {}
    by_row |= {"grids": sizes.to_json()} if sizes else {}
    absent = (*(() if views else OF_VIEWS), *(() if sizes else OF_GRIDS))
    written = tuple(name for name in WRITTEN if name not in absent)
    preprocessing = preprocessing_id(image) | image_reading.icc_choice(chosen.image, image)
    rows = image_reading.rows_choice(image, chosen.image) | {"require_caption": chosen.require_caption}
    tokens = storage.join(job.output, "data", "*.parquet")
    return Task(
        models=(tokenizer_model(checkpoint, name),),
        fingerprint={
            "preprocessing": preprocessing,
            "rows": rows,
            "views": "off",
            "grids": "one",
            "evaluate": False,
            **by_row,
        },
        open=image_reading.OPEN,
        input=replace(job.files.request, written=written),
        work=lambda plan, settings: Encode(
            model=chosen.tokenizer.settings(settings),
            image=image_reading.as_planned(image, plan),
            spec=checkpoint.spec,
            require_caption=chosen.require_caption,
            views=views,
        ),
        provenance=lambda plan: (
            tokenizer_provenance(checkpoint, plan) | {"preprocessing": plan.fingerprint["preprocessing"]} | by_row
        ),
        look=f"vqbeam decode --input '{tokens}' --output images --contact_sheet",
        backend=chosen.tokenizer.backend,
        max_image_bytes=image.max_image_bytes,
        images_per_row=views.count if views else 1,
        row_bytes=output_size.of_codes(checkpoint.spec),
    )


COMMAND = JobCommand(
    name="encode",
    description="Turn images with captions into VQGAN tokens, as Parquet ready for training. Resumes by itself.",
    examples=(
        "vqbeam encode --input 'pairs/*.tar' --output tokens",
        "vqbeam encode --input photos --output more_tokens --views flip --dry_run",
    ),
    add_flags=add_flags,
    options=options,
    prepare=prepare,
)
