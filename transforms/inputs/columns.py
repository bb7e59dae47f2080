"""Which column of the input is the image, the codes, the caption or prompt, or the key, and which ones pass through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from models.bart.options import OPTIONS
from transforms.errors import UsageError
from transforms.inputs.request import InputRequest, InputSchema, Kind, moved_name

# The usual names, in lower case. A later group counts only if no column has a name of an earlier one.
IMAGE_BYTES = (("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "img_bytes", "picture", "bytes"),)
IMAGE_PATHS = ("image", "img", "image_path", "img_path", "image_file", "file_name", "filename", "path", "filepath")
IMAGE_URIS = ((*IMAGE_PATHS, "file_path", "image_url", "image_uri", "url", "uri", "img_url"),)
CAPTIONS = (("caption", "captions"), ("text", "texts", "txt", "prompt", "description", "title", "alt_text", "alt"))
PROMPTS = (("prompt",), ("caption",), ("text",))
KEYS = (("key", "__key__"), ("id", "uid", "image_id", "sample_id"))
CODE_NAMES = (("encoding", "encodings"), ("codes", "tokens", "image_tokens", "image_codes"))
STATUS = {"status", "error_message", "key"}  # together they are written by img2dataset

RESERVED: dict[Kind, tuple[str, ...]] = {
    "images": ("key", "caption", "encoding", "original_width", "original_height"),
    "codes": ("key", "caption", "image", "image_path"),
    "prompts": (
        *("key", "prompt", "sample", "seed", "encoding", "image", "image_path"),
        *("clip_score", "rank", "width", "height"),
    ),
}
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")  # of the files of samples
ORIGINAL_SIZE = ("original_width", "original_height")


def is_binary(kind: pa.DataType) -> bool:
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind)


def is_string(kind: pa.DataType) -> bool:
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def is_image_struct(kind: pa.DataType) -> bool:
    """The `{bytes, path}` of Hugging Face datasets."""
    return pt.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)


def holds_image(kind: pa.DataType) -> bool:
    return is_binary(kind) or is_image_struct(kind)


def is_image_or_path(kind: pa.DataType) -> bool:
    return holds_image(kind) or is_string(kind)


def holds_caption(kind: pa.DataType) -> bool:
    return is_string(kind) or (is_list(kind) and is_string(kind.value_type))


def holds_number(kind: pa.DataType) -> bool:
    """Also text: csv has nothing else."""
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or is_string(kind) or pt.is_null(kind)


def holds_key(kind: pa.DataType) -> bool:
    return is_string(kind) or pt.is_integer(kind)


def holds_codes(kind: pa.DataType) -> bool:
    return (is_list(kind) and pt.is_integer(kind.value_type)) or is_binary(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary type as the type of its values, a view as what it shows; others as they are."""
    if pt.is_dictionary(kind):
        return plain(kind.value_type)
    if pt.is_string_view(kind):
        return pa.string()
    return pa.binary() if pt.is_binary_view(kind) else kind


def listing(columns: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in columns) or "none"


class ColumnPicker:
    """Picks columns of one input by name or among the usual names; messages call the input `where`."""

    def __init__(self, columns: pa.Schema, where: str) -> None:
        self.columns = columns
        self.where = where

    def named(self, name: str, option: str, fits: Callable[[pa.DataType], bool], wanted: str) -> str:
        """The column that the user named. Raises `UsageError` if it is missing or has another type."""
        if name not in self.columns.names:
            raise UsageError(f"{self.where} has no column {name}; it has {listing(self.columns)}", option=option)
        kind = self.columns.field(name).type
        if not fits(kind):
            raise UsageError(f"column {name} of {self.where} is {kind}, not {wanted}", option=option)
        return name

    def guess(
        self, groups: Iterable[tuple[str, ...]], option: str, fits: Callable[[pa.DataType], bool], wanted: str
    ) -> str | None:
        """The column with one of the usual names, None if none has one. Raises `UsageError` if several have."""
        for names in groups:
            found = [f.name for f in self.columns if f.name.lower() in names and fits(f.type)]
            if len(found) > 1:
                raise UsageError(
                    f"{self.where}: {' and '.join(found)} could each be {wanted}; name one of them. "
                    f"The columns are {listing(self.columns)}",
                    option=option,
                )
            if found:
                return found[0]
        return None

    def missing(self, option: str, wanted: str) -> UsageError:
        return UsageError(
            f"{self.where}: no column looks like {wanted}; name it. The columns are {listing(self.columns)}",
            option=option,
        )


def table_schema(request: InputRequest, columns: pa.Schema, where: str, scheme: str) -> InputSchema:
    """The schema of a job from the columns of its (first) table. Raises `UsageError`."""
    twice = sorted({name for name in columns.names if columns.names.count(name) > 1})
    if twice:
        raise UsageError(f"{where} has several columns called {', '.join(twice)}; the columns are {listing(columns)}")
    columns = pa.schema([pa.field(field.name, plain(field.type)) for field in columns])
    picker = ColumnPicker(columns, where)
    parts = PARTS[request.kind](request, picker)
    caption = parts["caption"]
    schema = InputSchema(
        kind=request.kind,
        caption_is_list=caption is not None and is_list(columns.field(caption).type),
        key=key_column(request, picker),
        uri_schemes=request.uri_schemes or (scheme,),
        key_from=request.key_from,
        **parts,
    )
    return with_passthrough(request, columns, where, schema)


def _image_parts(request: InputRequest, picker: ColumnPicker) -> dict[str, Any]:
    return {
        "image": _image_column(request, picker),
        "caption": caption_column(request, picker),
        "status": status_column(picker.columns),
    }


def _code_parts(request: InputRequest, picker: ColumnPicker) -> dict[str, Any]:
    return {"codes": _code_column(request, picker), "caption": caption_column(request, picker)}


def _prompt_parts(request: InputRequest, picker: ColumnPicker) -> dict[str, Any]:
    return {"caption": prompt_column(request, picker), "options": option_columns(request, picker)}


PARTS: dict[Kind, Callable[[InputRequest, ColumnPicker], dict[str, Any]]] = {
    "images": _image_parts,
    "codes": _code_parts,
    "prompts": _prompt_parts,
}


def _image_column(request: InputRequest, picker: ColumnPicker) -> str:
    if request.image_column:
        return picker.named(request.image_column, "image_column", is_image_or_path, "bytes, {bytes, path} or a path")
    found = picker.guess(IMAGE_BYTES, "image_column", holds_image, "the image")
    if found is None:
        unnamed = [field.name for field in picker.columns if holds_image(field.type)]
        found = unnamed[0] if len(unnamed) == 1 else None
    found = found or picker.guess(IMAGE_URIS, "image_column", is_string, "the image")
    if found is None:
        raise picker.missing("image_column", "the image")
    return found


def _code_column(request: InputRequest, picker: ColumnPicker) -> str:
    if request.code_column:
        return picker.named(request.code_column, "code_column", holds_codes, "a list of integers or binary")
    found = picker.guess(CODE_NAMES, "code_column", holds_codes, "the codes")
    if found is None:
        raise picker.missing("code_column", "image codes")
    return found


def caption_column(request: InputRequest, picker: ColumnPicker) -> str | None:
    if request.caption_column:
        return picker.named(request.caption_column, "caption_column", holds_caption, "a string or a list of strings")
    found = picker.guess(CAPTIONS, "caption_column", holds_caption, "the caption")
    if found is None and request.caption_required:
        raise picker.missing("caption_column", "the caption")
    return found


def prompt_column(request: InputRequest, picker: ColumnPicker) -> str:
    option = "prompt_column"
    if request.caption_column:
        found: str | None = picker.named(request.caption_column, option, holds_caption, "a string")
    else:
        found = picker.guess(PROMPTS, option, holds_caption, "the prompt")
    if found is None:
        raise picker.missing(option, "the prompt (strings called prompt, caption or text)")
    if is_list(picker.columns.field(found).type):
        raise UsageError(
            f"{picker.where}: column {found} holds lists, and vqbeam cannot tell which of several texts is meant: "
            "write a row for each, or name a column of strings",
            option=option,
        )
    return found


def option_columns(request: InputRequest, picker: ColumnPicker) -> tuple[str, ...]:
    """The columns that say how a prompt is drawn; one that is renamed only passes through. Raises `UsageError`."""
    renamed = {name for name, _ in request.rename}
    found = [name for name in picker.columns.names if name.lower() in OPTIONS and name not in renamed]
    for name in found:
        kind = picker.columns.field(name).type
        if not holds_number(kind):
            raise UsageError(
                f"{picker.where}: column {name} is {kind}, which holds no numbers; if it is not what {name.lower()} "
                f"means to vqbeam, rename it ({name}=NAME)",
                option="rename",
            )
    lower = [name.lower() for name in found]
    twice = [name for name in found if lower.count(name.lower()) > 1]
    if twice:
        raise UsageError(f"{picker.where}: {' and '.join(twice)} mean the same; rename one", option="rename")
    return tuple(found)


def key_column(request: InputRequest, picker: ColumnPicker) -> str | None:
    if request.key_from == "prompt":
        if request.key_column:
            raise UsageError(f"key_column {request.key_column} and key_from prompt contradict each other")
        return None
    if request.key_column:
        return picker.named(request.key_column, "key_column", holds_key, "a string or an integer")
    return picker.guess(KEYS, "key_column", holds_key, "the key")


def status_column(columns: pa.Schema) -> str | None:
    """img2dataset's `status`; the columns beside it tell it from another column of that name."""
    return "status" if set(columns.names) >= STATUS and is_string(columns.field("status").type) else None


def with_passthrough(request: InputRequest, columns: pa.Schema, where: str, schema: InputSchema) -> InputSchema:
    """`schema` with the columns that pass through, under their names in the output.

    Raises `UsageError` for a column that is missing or has no use for its new name, and for a name that the command
    writes itself.
    """
    renames = {name: moved_name(name, columns.names) for name in request.moved} | dict(request.rename)
    for option, names in (("columns", request.columns or ()), ("rename", tuple(dict(request.rename)))):
        missing = [name for name in names if name not in columns.names]
        if missing:
            raise UsageError(f"{where} has no column {', '.join(missing)}; it has {listing(columns)}", option=option)
    parts = {schema.image, schema.caption, schema.caption_field, schema.key, schema.codes, *schema.options}
    chosen = [name for name in columns.names if name not in parts] if request.columns is None else request.columns
    unused = [name for name in dict(request.rename) if name not in chosen]
    if unused:
        passing = ", ".join(chosen) or "none"
        raise UsageError(
            f"column {unused[0]} of {where} does not pass through; those that do: {passing}", option="rename"
        )
    fields = [pa.field(renames.get(name, name), columns.field(name).type) for name in chosen]
    written = (*(request.written or RESERVED[request.kind]), *(n.lower() for n in schema.options if n not in chosen))
    _check_names(fields, tuple(chosen), written, where)
    return replace(schema, passthrough=pa.schema(fields), origins=tuple(chosen), chosen=request.columns is not None)


def _check_names(fields: list[pa.Field], origins: tuple[str, ...], written: tuple[str, ...], where: str) -> None:
    names = [field.name for field in fields]
    sizes = [field for field in fields if field.name in ORIGINAL_SIZE and pt.is_integer(field.type)]
    taken = set(written)
    if len(sizes) == len(ORIGINAL_SIZE):
        taken -= set(ORIGINAL_SIZE)  # the sizes before img2dataset's resizing: kept instead of our own
    for name, origin in zip(names, origins, strict=True):
        if name in taken or names.count(name) > 1:
            raise UsageError(
                f"{where}: column {origin} would be written as {name}, a name that is taken; "
                f"rename it ({origin}=NAME), or choose columns without it",
                option="rename",
            )


def sample_schema(
    request: InputRequest, fields: pa.Schema, extensions: Iterable[str], where: str, scheme: str
) -> InputSchema:
    """The schema of a job whose rows are groups of files (WebDataset samples, images with siblings).

    `fields` are those of the json members, `extensions` of the members seen. Raises `UsageError`.
    """
    picker = ColumnPicker(fields, where)
    seen = sorted(set(extensions))
    members = f"the files of a sample end in {', '.join(seen) or 'nothing'}, and the json has {listing(fields)}"
    if request.image_column and request.image_column not in seen:
        raise UsageError(f"{where} has no {request.image_column} files; {members}", option="image_column")
    caption: str | None = "txt"
    caption_field: str | None = None
    if request.caption_column in fields.names:
        caption, caption_field = None, request.caption_column
        caption_column(request, picker)
    elif request.caption_column:
        caption = request.caption_column
        if caption not in seen:
            raise UsageError(f"{where} has nothing called {caption}; {members}", option="caption_column")
    else:
        groups = CAPTIONS[:1] if "txt" in seen else CAPTIONS
        caption_field = picker.guess(groups, "caption_column", holds_caption, "the caption")
    key = request.key_column and key_column(request, picker)
    schema = InputSchema(
        kind=request.kind,
        image=request.image_column,
        caption=caption,
        caption_field=caption_field,
        caption_is_list=caption_field is not None and is_list(fields.field(caption_field).type),
        key=key or picker.guess(KEYS[:1], "key_column", holds_key, "the key"),
        status=status_column(fields),
        uri_schemes=request.uri_schemes or (scheme,),
    )
    return with_passthrough(request, fields, where, schema)
