"""The flags that commands share, and the typed options that they become."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, cast

from models.bart.options import OPTIONS, SAMPLING
from models.image_tokenizer import FAMILIES
from pipelines.request import JobOptions, Settings
from transforms import storage
from transforms.errors import RowRejected, UsageError
from transforms.inputs.formats import formats_of
from transforms.inputs.options import option_value
from transforms.inputs.request import InputRequest, Kind
from transforms.outputs.layout import EXTENSIONS, LAYOUTS

Options = TypeVar("Options")

MODEL_NAMES = "emoji (built in), a folder, gs://..., s3://... or hf://owner/name[@revision]"
DTYPE_CHOICES = ("auto", "float32", "tf32", "bfloat16", "float16")


def add_input_flags(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """What is read. `kind` is what the rows hold."""
    rows = "prompts" if kind == "prompts" else "rows"
    group = parser.add_argument_group("input")
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        required=kind != "prompts",
        default=[] if kind == "prompts" else None,
        metavar="PATTERN",
        help="files, folders, globs (* ? **) or brace patterns {00000..00099}; local, gs://, s3:// or any fsspec URL",
    )
    if kind == "prompts":
        group.add_argument(
            "--prompt", nargs="+", action="extend", default=[], metavar="TEXT", help="prompts, instead of --input"
        )
    group.add_argument("--input_format", choices=list(formats_of(kind)), help="default: inferred from file extensions")
    if kind == "images":
        group.add_argument("--image_column", metavar="NAME", help="image bytes, paths or URIs; default: guessed")
    elif kind == "codes":
        group.add_argument("--code_column", metavar="NAME", help="default: guessed (encoding, codes, ...)")
    if kind == "prompts":
        group.add_argument("--prompt_column", metavar="NAME", help="default: prompt, caption or text")
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
        "--columns",
        nargs="*",
        action="extend",
        metavar="NAME",
        help="other columns to copy; default: all",
    )
    group.add_argument(
        "--rename", nargs="+", action="extend", default=[], metavar="OLD=NEW", help="new names for copied columns"
    )
    if kind == "images":
        group.add_argument(
            "--uri_schemes",
            nargs="+",
            action="extend",
            metavar="SCHEME",
            help="allowed schemes of URIs inside the data; default: the scheme of the dataset",
        )
    group.add_argument("--limit", type=positive, metavar="N", help=f"only the first N {rows}, in plan order")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="DIR", help="a folder, local or on any fsspec URL")
    group.add_argument("--overwrite", action="store_true", help="first remove what an earlier job wrote there")
    group.add_argument("--extend", action="store_true", help="add new input files to the stored plan, as more shards")
    group.add_argument("--retry_rejected", action="store_true", help="redo the shards that rejected rows")
    group.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    group.add_argument(
        "--max_error_rate",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="rejected rows tolerated, from a worker's 1000th row on and at the end (default 0.1)",
    )


def add_model_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    """The one image tokenizer of a command."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default,
        metavar="NAME",
        help=f"image tokenizer ({', '.join(FAMILIES)}): {MODEL_NAMES} (default "
        + (f"{default})" if default else "the model that made the tokens)"),
    )
    add_backend_flag(group)
    add_device_flags(group)
    add_checkpoint_flags(group)


def add_backend_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--backend", choices=("torch", "vqgan-jax"), default="torch", help="default torch")


def add_device_flags(group: argparse._ArgumentGroup, *, draws: bool = False) -> None:
    """Where and how precisely models run; `draws` if the model of the command only draws codes."""
    add_device_flag(group)
    group.add_argument(
        "--dtype",
        choices=(*DTYPE_CHOICES, "int8") if draws else DTYPE_CHOICES,
        default="auto",
        help="auto: float32 on a CPU, bfloat16 on a GPU"
        + ("; int8: on a CPU, for one or two images at a time" if draws else ""),
    )


def add_device_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")


def add_checkpoint_flags(group: argparse._ArgumentGroup) -> None:
    """How an image tokenizer is opened, and where models are kept."""
    group.add_argument(
        "--pixel_range",
        type=pixel_range,
        metavar="LOW,HIGH",
        help="range of the network's pixels, 0,1 or -1,1 (default: the checkpoint's, else its format's)",
    )
    add_cache_flag(group)


def add_cache_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model_cache",
        metavar="DIR",
        default=default_model_cache(),
        help="keeps downloaded models (default $VQBEAM_CACHE, else vqbeam in the user's cache folder)",
    )


def add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    """How codes are drawn; None stands for the model's default."""
    for name, record in SAMPLING.items():
        meaning = f"{record.help}; " if record.help else ""
        default = f"default: the model's, else {record.default:g}"
        group.add_argument(f"--{name}", type=option(name), metavar=record.metavar, help=meaning + default)


def add_image_flags(group: argparse._ArgumentGroup) -> None:
    """How images are read and become squares."""
    group.add_argument(
        "--resize",
        choices=("center_crop", "pad", "squash", "none"),
        help="how an image becomes the model's square (default center_crop)",
    )
    group.add_argument("--jpeg_scale", choices=("auto", "off"), help="off: decode JPEGs in full before resizing")
    add_limit_flags(group)


def add_limit_flags(group: argparse._ArgumentGroup) -> None:
    """The largest images that are read."""
    group.add_argument("--max_image_bytes", type=positive, metavar="N", help="larger files are rejected")
    group.add_argument("--max_image_pixels", type=positive, metavar="N", help="larger images are rejected")


def add_output_image_flags(group: argparse._ArgumentGroup, *, caption: str = "captions") -> None:
    """How images are written."""
    group.add_argument("--image_format", choices=tuple(EXTENSIONS), default="png", help="default png")
    layouts = "; ".join(f"{name}: {text}" for name, (_, text) in LAYOUTS.items())
    group.add_argument("--image_layout", choices=tuple(LAYOUTS), default="files", help=f"{layouts} (default files)")
    group.add_argument("--contact_sheet", action="store_true", help=f"also one PNG of the first images with {caption}")


def add_run_flags(parser: argparse.ArgumentParser, *, shard_of: str = "rows", batch_of: str = "rows") -> None:
    """How the work is divided; `shard_of` and `batch_of` are what shards and batches count."""
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--rows_per_shard", type=positive, metavar="N", help=f"{shard_of} a shard; default: some minutes of work"
    )
    group.add_argument(
        "--batch_size",
        type=positive,
        metavar="N",
        help=f"{batch_of} at once on the device; default: by device",
    )
    group.add_argument("--workers", type=positive, metavar="N", help="on this machine; default: one per GPU, else one")
    group.add_argument(
        "--threads_per_worker", type=positive, metavar="N", help="default: cores / workers; rounding depends on it"
    )
    group.add_argument("--temp_dir", metavar="DIR", help="folder for temporary files; default: the system's")


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags of these names that were given, by name."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def given_image_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_image_flags` that were given, as fields of `ImageOptions`."""
    found = given(args, "resize", "jpeg_scale", "max_image_bytes", "max_image_pixels")
    return found | ({"jpeg_scale": found["jpeg_scale"] == "auto"} if "jpeg_scale" in found else {})


def fill(kind: type[Options], args: argparse.Namespace, **others: Any) -> Options:
    """A dataclass of options from the flags that are called like its fields; `others` are its other fields."""
    names = [field.name for field in fields(cast(Any, kind)) if field.name not in others]
    return kind(**{name: getattr(args, name) for name in names}, **others)


def job_options(args: argparse.Namespace, kind: Kind) -> JobOptions:
    """The options that every launching command has. Raises `UsageError`."""
    if storage.has_wildcard(args.output):
        raise UsageError(f"--output {args.output}: a folder's name without * ? [ is needed")
    settings = Settings(args.device, args.dtype, args.batch_size or 0, args.threads_per_worker or 0, args.workers or 0)
    return fill(
        JobOptions,
        args,
        input=input_request(args, kind),
        output=storage.absolute(args.output),
        settings=settings,
        model_names=tuple(filter(None, (getattr(args, name, None) for name in ("model", "vqgan", "clip")))),
        contact_sheet=getattr(args, "contact_sheet", False),
    )


def input_request(args: argparse.Namespace, kind: Kind) -> InputRequest:
    """What is read. Raises `UsageError`."""
    return InputRequest(
        patterns=tuple(args.input),
        input_format=args.input_format,
        image_column=args.image_column if kind == "images" else None,
        code_column=args.code_column if kind == "codes" else None,
        caption_column=args.prompt_column if kind == "prompts" else args.caption_column,
        key_column=args.key_column,
        columns=None if args.columns is None else tuple(args.columns),
        rename=tuple(_pair(item) for item in args.rename),
        uri_schemes=tuple(args.uri_schemes) if kind == "images" and args.uri_schemes else None,
        kind=kind,
        prompts=tuple(args.prompt) if kind == "prompts" else (),
        key_from=args.key_from if kind == "prompts" else "row",
    )


def default_model_cache() -> str:
    """`$VQBEAM_CACHE`, else `vqbeam` in the user's cache folder; `~` is left for each worker to expand."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.environ.get("VQBEAM_CACHE") or f"{home}/vqbeam"


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def option(name: str) -> Callable[[str], int | float]:
    """The type of a flag that means what the column `name` of a row means (`models/bart/options.py`)."""

    def value(text: str) -> int | float:
        try:
            number = option_value(name, text)
        except RowRejected:
            number = None
        if number is None:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {OPTIONS[name].wanted}")
        return number

    return value


def share(text: str) -> float:
    return _between(text, 0, 1)


def cosine(text: str) -> float:
    return _between(text, -1, 1)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from {low} to {high}") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
    return value


def pixel_range(text: str) -> tuple[float, float]:
    """ "0,1" or "-1,1"."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected LOW,HIGH such as 0,1 or -1,1") from None
    if not low < high:
        raise argparse.ArgumentTypeError(f"{text!r}: LOW must be below HIGH")
    return low, high


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise UsageError(f"--rename {text}: expected OLD=NEW")
    return old, new
