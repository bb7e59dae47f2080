"""What `vqbeam vary` is given, pictures or tokens, and which of its flags have a meaning with them."""

from __future__ import annotations

import argparse

import pyarrow as pa

from pipelines.flags import inputs_of
from transforms.errors import UsageError
from transforms.images import ImageOptions
from transforms.inputs.columns import CODE_NAMES, IMAGE_BYTES, ColumnPicker, holds_codes, holds_image, plain
from transforms.inputs.formats.parquet import read_footer
from transforms.inputs.request import Kind

IMAGE_FLAGS = ("uri_schemes", "resize", "jpeg_scale", "max_image_bytes", "max_image_pixels")


def input_kind(args: argparse.Namespace) -> Kind:
    """By the column that is named, else by those of the first file: tokens are Parquet with a column of codes and none
    of image bytes (paths of images do not count: tables of pictures have them beside codes).

    Raises `UsageError` where that cannot be told, and for flags that have no meaning with what it is.
    """
    kind = _kind(args)
    other = IMAGE_FLAGS if kind == "codes" else ("allow_model_mismatch",)
    for name in other:
        if getattr(args, name):
            what = "tokens, and no images" if kind == "codes" else "images, and no tokens"
            raise UsageError(f"--{name} has no meaning here: the input is {what}; leave it out")
    return kind


def _kind(args: argparse.Namespace) -> Kind:
    if args.code_column and args.image_column:
        raise UsageError("--code_column and --image_column contradict each other: name what is to be varied")
    if args.code_column or args.image_column:
        return "codes" if args.code_column else "images"
    inputs = inputs_of(args, "images")
    if inputs.format != "parquet":
        return "images"
    first = inputs.files[0].uri
    try:
        columns = read_footer(first).columns
    except pa.ArrowInvalid:  # reading it makes that a rejected row
        return "images"
    picker = ColumnPicker(pa.schema([pa.field(field.name, plain(field.type)) for field in columns]), first)
    codes = picker.guess(CODE_NAMES, "--code_column", holds_codes, "the codes")
    image = picker.guess(IMAGE_BYTES, "--image_column", holds_image, "the image")
    if codes and image and codes != image:
        raise UsageError(
            f"{first} has images ({image}) and tokens ({codes}): say which to vary with --image_column {image} or "
            f"--code_column {codes}"
        )
    return "codes" if codes else "images"


def image_options(args: argparse.Namespace, size: int) -> ImageOptions:
    """How pictures become the square of the model. Raises `UsageError`."""
    given = {"max_image_bytes": args.max_image_bytes, "max_image_pixels": args.max_image_pixels, "resize": args.resize}
    chosen = {name: value for name, value in given.items() if value is not None}
    return ImageOptions(size=size, jpeg_scale=args.jpeg_scale != "off", **chosen)
