"""The flags that commands share, and the typed options that they become."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar, cast

from models.bart.options import SAMPLING
from models.image_tokenizer import FAMILIES
from pipelines import monitoring
from pipelines.accelerators import FLAG as ACCELERATOR
from pipelines.flag_values import SQUARES, buckets, dtype, number, option, pair, pixel_range, positive, resize, share
from pipelines.monitoring import Monitoring
from pipelines.request import InputFiles, JobOptions, Settings
from pipelines.written import written_names
from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats import formats_of
from transforms.inputs.request import InputRequest, Kind
from transforms.outputs.layout import EXTENSIONS, LAYOUTS

Options = TypeVar("Options")

MODEL_NAMES = "emoji (built in), a folder, gs://..., s3://... or hf://owner/name[@revision]"
DTYPES = ("auto", "fastest", "float32", "tf32", "bfloat16", "float16")
TOKENIZER_OPTIONS = ("pixel_range", "image_size", "weights")  # of `TokenizerOptions`
DTYPE_HELP = "auto: bfloat16 on a GPU that has it, else float32; fastest: by the device; fp32, bf16, fp16 will do"


# What flags have in common.
COUNT: Mapping[str, Any] = {"type": positive, "metavar": "N"}
SEVERAL: Mapping[str, Any] = {"nargs": "+", "action": "extend", "default": []}
NO_WAIT: Mapping[str, Any] = {"action": "store_true", "help": "on Dataflow: print where the job is seen, and leave it"}


def add_input_flags(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """What is read. `kind` is what the rows hold."""
    rows = "prompts" if kind == "prompts" else "rows"
    group = parser.add_argument_group("input")
    group.add_argument(
        "--input",
        dest="patterns",
        required=kind != "prompts",
        **SEVERAL,
        metavar="PATTERN",
        help="files, folders, globs (* ? **) or brace patterns {00000..00099}; local, gs://, s3:// or any fsspec URL",
    )
    if kind == "prompts":
        group.add_argument("--prompt", dest="prompts", **SEVERAL, metavar="TEXT", help="prompts, instead of --input")
    group.add_argument("--input_format", choices=list(formats_of(kind)), help="default: inferred from file extensions")
    if kind == "images":
        group.add_argument("--image_column", metavar="NAME", help="image bytes, paths or URIs; default: guessed")
    elif kind == "codes":
        group.add_argument("--code_column", metavar="NAME", help="default: guessed (encoding, codes, ...)")
    if kind == "prompts":
        group.add_argument(
            "--prompt_column", dest="caption_column", metavar="NAME", help="default: prompt, caption or text"
        )
        group.add_argument(
            "--key_from",
            choices=("row", "prompt"),
            default="row",
            help="what the key, which decides the images, is made from: the row's number or the prompt (default row)",
        )
    else:
        group.add_argument(
            "--caption_column",
            metavar="NAME",
            help="default: guessed from the usual names (caption, text, prompt, ...); written as caption",
        )
    group.add_argument("--key_column", metavar="NAME", help="default: guessed, else file name and row number")
    group.add_argument(
        "--columns", nargs="*", action="extend", metavar="NAME", help="other columns to copy; default: all"
    )
    group.add_argument("--rename", type=pair, **SEVERAL, metavar="OLD=NEW", help="new names for copied columns")
    if kind == "images":
        group.add_argument(
            "--uri_schemes",
            nargs="+",
            action="extend",
            metavar="SCHEME",
            help="allowed schemes of URIs inside the data; default: the scheme of the dataset",
        )
        group.add_argument(
            "--on_fetch_error",
            choices=("reject", "fail"),
            help="what a URI inside the data costs whose server or store still fails after the retries: the row, or "
            "the shard, as a fault of the dataset's own store always does (default reject)",
        )
    if kind != "codes":
        group.add_argument(
            "--quoting",
            choices=("auto", "none", "csv"),
            help="quotation marks in csv and tsv: csv, they enclose cells; none, they are text; default: auto, csv for "
            "a csv, and for a tsv if it quotes cells consistently",
        )
    group.add_argument("--limit", **COUNT, help=f"only the first N {rows}, in plan order")


def add_output_flags(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("output")
    otherwise = "" if required else "; default: none, only the totals are printed"
    group.add_argument(
        "--output", required=required, metavar="DIR", help=f"a folder, local, gs://, s3:// or any fsspec URL{otherwise}"
    )
    group.add_argument("--overwrite", action="store_true", help="first remove what an earlier job wrote there")
    group.add_argument("--extend", action="store_true", help="add new input files to the stored plan, as more shards")
    group.add_argument("--retry_rejected", action="store_true", help="redo the shards that rejected rows")
    group.add_argument(
        "--allow_other_versions", action="store_true", help="go on with a job that other versions of packages began"
    )
    add_dry_run_flags(group)
    group.add_argument(
        "--report", action="store_true", help="at the end also report.html, a page about what came out: docs/report.md"
    )
    group.add_argument(
        "--max_error_rate",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="rejected rows tolerated, from a worker's 1000th row on and at the end (default 0.1)",
    )


def add_dry_run_flags(group: argparse._ArgumentGroup) -> None:
    """What a job would do, in advance."""
    group.add_argument("--dry_run", action="store_true", help="print the plan with its time and size, and stop")
    group.add_argument(
        "--json", action="store_true", help="with --dry_run: as one JSON object; docs/encode.md has its fields"
    )
    group.add_argument(
        "--price_per_hour",
        type=partial(number, kind=float, low=0, high=1e9, wanted="a price"),
        metavar="PRICE",
        help="with --dry_run: of a machine, to tell the cost",
    )


def add_tokenizer_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    """The one image tokenizer of a command."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default,
        metavar="NAME",
        help=f"image tokenizer ({', '.join(FAMILIES)}): {MODEL_NAMES} (default "
        + (f"{default})" if default else "the model that made the tokens)"),
    )
    add_model_flags(group, "tokenizer", "backend", "device", "dtype", *TOKENIZER_OPTIONS, "model_cache")


def add_tokenizers_flags(parser: argparse.ArgumentParser, default: str) -> None:
    """Several image tokenizers, by as many `--model`, and a CLIP that looks at their images; see `models_named`."""
    group = parser.add_argument_group(
        "models",
        f"{', '.join(f'--{name}' for name in ('tokenizer', *TOKENIZER_OPTIONS))} after a --model are of that model",
    )
    group.add_argument(
        "--model",
        dest="models",
        action=_AnotherModel,
        metavar="NAME",
        help=f"image tokenizer ({', '.join(FAMILIES)}): {MODEL_NAMES} (default {default}); again for another one",
    )
    add_model_flags(group, "tokenizer", *TOKENIZER_OPTIONS, action=_OfTheModel)
    add_measuring_clip_flag(group)
    add_model_flags(group, "backend", "device", "dtype", "model_cache")
    parser.set_defaults(model=default)


def add_measuring_clip_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--clip", metavar="NAME", help="also the cosine and CMMD, by a transformers CLIPModel")


class _AnotherModel(argparse.Action):
    """Begins what is said of a model."""

    repeats = True

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        namespace.models = [*(namespace.models or []), {"model": values}]


class _OfTheModel(argparse.Action):
    """Says something of the model named last, or of all before the first."""

    of_the_last = True

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if namespace.models:
            namespace.models[-1][self.dest] = values
        else:
            setattr(namespace, self.dest, values)


def models_named(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What `add_tokenizers_flags` was told of each model, as fields of `TokenizerChoice`."""
    return args.models or [{}]


def add_model_flags(group: argparse._ArgumentGroup, *names: str, action: type[argparse.Action] | None = None) -> None:
    """The flags of these names: how models are opened, where and how precisely they run, and where they are kept."""
    known: dict[str, dict[str, Any]] = {
        "tokenizer": {
            "metavar": "CLASS",
            "help": "a class of yours that opens --model: package.module:Class, or an entry point of vqbeam.tokenizers",
        },
        "backend": {"choices": ("torch", "vqgan-jax"), "default": "torch", "help": "default torch"},
        "device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (default auto)"},
        "dtype": {"type": dtype, "choices": DTYPES, "default": "auto", "help": DTYPE_HELP},
        "pixel_range": {
            "type": pixel_range,
            "metavar": "LOW,HIGH",
            "help": "range of the network's pixels, 0,1 or -1,1 (default: the checkpoint's, else its format's; to be "
            "given for a VQModel of diffusers)",
        },
        "image_size": {
            **COUNT,
            "help": "side of the model's images in pixels, for checkpoints that do not say it (LlamaGen, Janus, "
            "diffusers, Show-o, MaskGIT, Emu3) or other sizes than theirs",
        },
        "weights": {
            "choices": ("ema", "raw"),
            "help": "averaged or raw weights, of a checkpoint that holds both",
        },
        "model_cache": {
            "metavar": "DIR",
            "default": "",  # each machine's own
            "help": "keeps downloaded models (default $VQBEAM_CACHE, else vqbeam in the user's cache folder)",
        },
    }
    for name in names:
        group.add_argument(f"--{name}", **(known[name] | ({"action": action} if action else {})))


def add_clip_text_flag(group: argparse._ArgumentGroup, texts: str) -> None:
    group.add_argument(
        "--clip_text",
        choices=("clean", "raw"),
        help=f"how the CLIP reads {texts}; clean: as open_clip does, by ftfy and without HTML entities (default clean)",
    )


def add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    """How codes are drawn; None stands for the model's default."""
    for name, record in SAMPLING.items():
        meaning = f"{record.help}; " if record.help else ""
        default = f"default: the model's, else {record.default:g}"
        group.add_argument(f"--{name}", type=option(name), metavar=record.metavar, help=meaning + default)


def add_image_flags(group: argparse._ArgumentGroup, *, by_row: bool = False) -> None:
    """How images are read and become squares; with `by_row` also sizes that differ by row."""
    more = "bucket, the nearest of --buckets; area:N, sides of N x N pixels' area at the image's own ratio"
    group.add_argument(
        "--resize",
        **({"type": resize, "metavar": "RULE"} if by_row else {"choices": SQUARES}),
        help=(f"one of {', '.join(SQUARES)}; {more}: " if by_row else "")
        + "how an image becomes the model's square (default auto: center_crop for tokenizers of dalle-mini and "
        "taming and for a VQModel of diffusers, for others exactly as their authors do it)",
    )
    if by_row:
        group.add_argument("--buckets", type=buckets, metavar="WxH,...", help="sizes in pixels, for --resize bucket")
        group.add_argument(
            "--any_size",
            action="store_true",
            help="with --resize none: images of any size in multiples of what a code stands for",
        )
    group.add_argument("--jpeg_scale", choices=("auto", "off"), help="off: decode JPEGs in full before resizing")
    add_limit_flags(group)


def add_limit_flags(group: argparse._ArgumentGroup) -> None:
    """Which images are read, and whether their colour profiles count."""
    group.add_argument("--icc", choices=("srgb", "off"), help="off: ignore colour profiles (default srgb: apply them)")
    group.add_argument(
        "--strict_images", action="store_true", default=None, help="reject files that are damaged beside their pixels"
    )
    group.add_argument("--max_image_bytes", **COUNT, help="larger files are rejected")
    group.add_argument("--max_image_pixels", **COUNT, help="larger images are rejected")


def add_output_image_flags(group: argparse._ArgumentGroup, *, caption: str = "captions") -> None:
    """How images are written."""
    group.add_argument("--image_format", choices=tuple(EXTENSIONS), default="png", help="default png")
    layouts = "; ".join(f"{name}: {text}" for name, (_, text) in LAYOUTS.items())
    group.add_argument("--image_layout", choices=tuple(LAYOUTS), default="files", help=f"{layouts} (default files)")
    group.add_argument("--contact_sheet", action="store_true", help=f"also one PNG of some images with {caption}")


def add_run_flags(parser: argparse.ArgumentParser, *, shard_of: str = "rows", batch_of: str = "rows") -> None:
    """How the work is divided; `shard_of` and `batch_of` are what shards and batches count."""
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--config", metavar="FILE", help="flags from a YAML or TOML file, by their names; those typed here come first"
    )
    group.add_argument(
        "--rows_per_shard", **COUNT, help=f"{shard_of} a shard; default: two minutes of this machine's work"
    )
    group.add_argument("--batch_size", **COUNT, help=f"{batch_of} at once on the device; default: by device")
    group.add_argument("--workers", **COUNT, help="on this machine; default: one per GPU, else one")
    group.add_argument(
        "--threads_per_worker", dest="threads", **COUNT, help="default: cores / workers; rounding depends on it"
    )
    group.add_argument(
        "--shard_timeout",
        type=partial(number, kind=float, low=1, high=1e9, wanted="a number of seconds, at least 1"),
        default=3600.0,
        metavar="SECONDS",
        help="for a shard that ended its worker twice, and so runs in a process of its own (default 3600)",
    )
    group.add_argument("--temp_dir", metavar="DIR", help="folder for temporary files; default: the system's")
    group.add_argument("--accelerator", **ACCELERATOR)
    group.add_argument("--no_wait", **NO_WAIT)
    monitoring.add_flags(parser)
    parser.set_defaults(batch_size=0, workers=0, threads=0)  # left open


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags of these names that were given, by name."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def given_image_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_image_flags` that were given, as fields of `ImageOptions`."""
    found = given(args, "resize", "jpeg_scale") | given_limit_flags(args)
    return found | ({"jpeg_scale": found["jpeg_scale"] == "auto"} if "jpeg_scale" in found else {})


def given_limit_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_limit_flags` that were given, as fields of `ImageLimits`."""
    found = given(args, "icc", "strict_images", "max_image_bytes", "max_image_pixels")
    return found | ({"icc": found["icc"] == "srgb"} if "icc" in found else {})


def fill(options: type[Options], args: argparse.Namespace, /, **others: Any) -> Options:
    """A dataclass of options from the flags that are called like its fields; `others` are fields without a flag.

    Lists become tuples. A field for which the command has no flag keeps its default.
    """
    names = [field.name for field in fields(cast(Any, options)) if field.name in args]
    found = {name: getattr(args, name) for name in names}
    tuples = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return options(**found | tuples | others)


def job_options(args: argparse.Namespace, kind: Kind) -> JobOptions:
    """The options that every launching command has. Raises `UsageError`."""
    if storage.has_wildcard(args.output):
        raise UsageError(f"--output {args.output}: a folder's name without * ? [ is needed")
    if not args.dry_run:
        for name in ("json", "price_per_hour"):
            if getattr(args, name) not in (None, False):
                raise UsageError(f"--{name} is of --dry_run: give that, too, or leave it out")
    output = storage.absolute(args.output)
    asked = fill(Monitoring, args)
    if asked.asked() and args.no_wait:
        raise UsageError(f"{asked.asked()[0]} takes the numbers from this command, which --no_wait ends")
    asked.check()
    return fill(
        JobOptions,
        args,
        files=InputFiles(fill(InputRequest, args, kind=kind), partial(written_names, output)),
        output=output,
        settings=fill(Settings, args),
        monitoring=asked,
        model_names=tuple(filter(None, (getattr(args, name, None) for name in ("model", "vqgan", "clip")))),
    )
