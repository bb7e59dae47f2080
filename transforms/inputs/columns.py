"""Which column of the input is the image, the codes, the caption or prompt, or the key, and which ones pass through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.types as pt

from models.bart.options import OPTIONS
from transforms.batch import ORIGINAL_HEIGHT, ORIGINAL_WIDTH
from transforms.errors import UsageError, brief, shortened
from transforms.inputs.column_types import (
    holds_caption,
    holds_codes,
    holds_image,
    holds_key,
    holds_number,
    is_image_or_path,
    is_list,
    is_string,
    may_be_called_caption,
    may_hold_caption,
    may_hold_key,
    plain_columns,
)
from transforms.inputs.request import READING, InputRequest, InputSchema, moved_name

STATUS = {"status", "error_message", "key"}  # together they are written by img2dataset
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")  # of the files of samples
MAX_LISTING = 2000  # characters of the columns that a message lists
ORIGINAL_SIZE = {ORIGINAL_WIDTH, ORIGINAL_HEIGHT}


def listing(columns: pa.Schema) -> str:
    return shortened(", ".join(f"{brief(field.name)} ({field.type})" for field in columns), MAX_LISTING) or "none"


@dataclass(frozen=True)
class Part:
    """A part that a column of the input can play, and the option that names the column.

    `usual` are groups of its usual names in lower case; a later group counts only if no column has a name of an earlier
    one. `fits` says whether a type can play the part, `wanted` says the same in words. A column with a type of `also`
    can play it, too, if it is the only one of its group; one with a type of `by_name`, if it is also named by the user
    or has a name of the first group.
    """

    option: str
    title: str
    usual: tuple[tuple[str, ...], ...]
    fits: Callable[[pa.DataType], bool]
    wanted: str
    also: Callable[[pa.DataType], bool] = lambda kind: False
    by_name: Callable[[pa.DataType], bool] = lambda kind: False

    def may_hold(self, kind: pa.DataType) -> bool:
        """Whether a column whose name leaves no doubt can play the part, though its type is not one that `fits`."""
        return self.also(kind) or self.by_name(kind)


BYTES = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "img_bytes", "picture", "bytes")
PATHS = ("image", "img", "image_path", "img_path", "image_file", "file_name", "filename", "path", "filepath")
URIS = (*PATHS, "file_path", "image_url", "image_uri", "url", "uri", "img_url")
BASE64 = ("image_base64", "base64", "b64", "image_b64", "img_base64", "img_b64", "image_data")
TEXTS = (("caption", "captions"), ("text", "texts", "txt", "prompt", "description", "title", "alt_text", "alt"))
TOKENS = (("encoding", "encodings"), ("codes", "tokens", "image_tokens", "image_codes"))
IDS = (("key", "__key__"), ("id", "uid", "image_id", "sample_id"))

IMAGE = Part("image_column", "the image", (BYTES, URIS), is_image_or_path, "bytes, {bytes, path} or a path")
CODES = Part("code_column", "the codes", TOKENS, holds_codes, "a list of integers or binary")
CAPTION = Part(
    "caption_column",
    "the caption",
    TEXTS,
    holds_caption,
    "a string or a list of strings",
    may_hold_caption,
    may_be_called_caption,
)
PROMPT = Part(
    "prompt_column", "the prompt", (("prompt",), ("caption",), ("text",)), holds_caption, "a string", may_hold_caption
)
KEY = Part("key_column", "the key", IDS, holds_key, "a string or an integer", may_hold_key)
IMAGE_BYTES = replace(IMAGE, usual=(BYTES,), fits=holds_image)
IMAGE_PATHS = replace(IMAGE, usual=(URIS, BASE64), fits=is_string)
FIRST_CAPTION, FIRST_KEY = replace(CAPTION, usual=TEXTS[:1]), replace(KEY, usual=IDS[:1])


class ColumnPicker:
    """Picks columns of one input by name or among the usual names; messages call the input `where`."""

    def __init__(self, columns: pa.Schema, where: str, unguessed: set[str] | None = None) -> None:
        """`unguessed` are columns that play a part only if they are named."""
        self.columns = columns
        self.where = where
        self.unguessed = unguessed or set()

    def named(self, name: str, part: Part) -> str:
        """The column that the user named. Raises `UsageError` if it is missing or has another type."""
        if name not in self.columns.names:
            raise UsageError(f"{self.where} has no column {name}; it has {listing(self.columns)}", option=part.option)
        kind = self.columns.field(name).type
        if not part.fits(kind) and not (part.may_hold(kind) and name not in self.unguessed):
            raise UsageError(f"column {name} of {self.where} is {kind}, not {part.wanted}", option=part.option)
        return name

    def guess(self, part: Part) -> str | None:
        """The column with one of the usual names, None if none has one. Raises `UsageError` if several have."""
        for names in part.usual:
            also = part.may_hold if names == part.usual[0] else part.also
            named = [f for f in self.columns if f.name.lower() in names and f.name not in self.unguessed]
            found = [f.name for f in named if part.fits(f.type)]
            if not found:
                others = [f.name for f in named if also(f.type)]
                found = others if len(others) == 1 else []
            if len(found) > 1:
                raise UsageError(
                    f"{self.where}: {' and '.join(found)} could each be {part.title}; name one of them. "
                    f"The columns are {listing(self.columns)}",
                    option=part.option,
                )
            if found:
                return found[0]
        return None

    def has_paths(self) -> bool:
        """Whether a column has a usual name of paths of images."""
        return any(f.name.lower() in names and is_string(f.type) for names in IMAGE_PATHS.usual for f in self.columns)

    def find(self, part: Part, name: str | None) -> str | None:
        """The column called `name`, or if that is None a guess. Raises `UsageError`."""
        return self.named(name, part) if name else self.guess(part)

    def need(self, part: Part, found: str | None) -> str:
        """Returns `found`. Raises `UsageError` if it is None."""
        if found is None:
            raise UsageError(
                f"{self.where}: no column looks like {part.title} ({part.wanted}); name it. "
                f"The columns are {listing(self.columns)}",
                option=part.option,
            )
        return found


def image_and_codes(columns: pa.Schema, where: str) -> tuple[str | None, str | None]:
    """The columns of a table that by their usual names hold image bytes and codes. Raises `UsageError`."""
    picker = ColumnPicker(plain_columns(columns), where)
    return picker.guess(IMAGE_BYTES), picker.guess(CODES)


def table_schema(
    request: InputRequest, columns: pa.Schema, where: str, folders: Mapping[str, pa.DataType] | None = None
) -> InputSchema:
    """The schema of a job from the columns of its (first) table, and from the columns that the names of its folders
    give (`transforms/inputs/hive.py`), unless the table has them. Raises `UsageError`."""
    folders = {name: kind for name, kind in (folders or {}).items() if name not in columns.names}
    twice = sorted({name for name in columns.names if columns.names.count(name) > 1})
    if twice:
        raise UsageError(f"{where} has several columns called {', '.join(twice)}; the columns are {listing(columns)}")
    columns = pa.schema([*plain_columns(columns), *folders.items()])
    request = replace(request, moved=(*request.moved, *(name for name in folders if name in request.written)))
    picker = ColumnPicker(columns, where, {*folders})
    draws = request.kind == "prompts"
    image = _image_column(request, picker) if request.kind == "images" else None
    codes = picker.need(CODES, picker.find(CODES, request.code_column)) if request.kind == "codes" else None
    picker.unguessed |= {name for name in (image, codes) if name}
    text = PROMPT if draws else CAPTION
    caption = picker.find(text, request.caption_column)
    if draws or request.caption_required:
        picker.need(text, caption)
    caption_is_list = caption is not None and is_list(columns.field(caption).type)
    if draws and caption_is_list:
        raise UsageError(
            f"{where}: column {caption} holds lists, and vqbeam cannot tell which of several texts is meant: "
            "write a row for each, or name a column of strings",
            option=text.option,
        )
    schema = InputSchema(
        kind=request.kind,
        image=image,
        caption=caption,
        caption_is_list=caption_is_list,
        codes=codes,
        options=option_columns(request, picker) if draws else (),
        key=key_column(request, picker),
        status=None if image is None else status_column(columns),
        uri_schemes=request.uri_schemes or (),
        key_from=request.key_from,
        folders=tuple(folders),
        reading=READING,
    )
    return with_passthrough(request, columns, where, schema)


def _image_column(request: InputRequest, picker: ColumnPicker) -> str:
    image = picker.named(request.image_column, IMAGE) if request.image_column else picker.guess(IMAGE_BYTES)
    if image is None:
        unnamed = [field.name for field in picker.columns if holds_image(field.type)]
        if len(unnamed) > 1 or picker.has_paths():  # beside these, binary that is called as a text is a text
            unnamed = [name for name in unnamed if not any(name.lower() in names for names in (*TEXTS, *IDS))]
        image = unnamed[0] if len(unnamed) == 1 else picker.guess(IMAGE_PATHS)
    return picker.need(IMAGE, image)


def option_columns(request: InputRequest, picker: ColumnPicker) -> tuple[str, ...]:
    """The columns that say how a prompt is drawn; one that is renamed only passes through. Raises `UsageError`."""
    renamed = {name for name, _ in request.rename}
    left_out = renamed | picker.unguessed
    found = [name for name in picker.columns.names if name.lower() in OPTIONS and name not in left_out]
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
    return picker.find(KEY, request.key_column)


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
    passthrough = pa.schema([(renames.get(name, name), columns.field(name).type) for name in chosen])
    written = (*request.written, *(n.lower() for n in schema.options if n not in chosen))
    _check_names(passthrough, tuple(chosen), written, where)
    return replace(schema, passthrough=passthrough, origins=tuple(chosen), chosen=request.columns is not None)


def keeps_original_sizes(passthrough: pa.Schema) -> bool:
    """Whether the input has the sizes before img2dataset's resizing, which are kept instead of our own."""
    return {column.name for column in passthrough if pt.is_integer(column.type)} >= ORIGINAL_SIZE


def _check_names(passthrough: pa.Schema, origins: tuple[str, ...], written: tuple[str, ...], where: str) -> None:
    names = passthrough.names
    for name, origin in zip(names, origins, strict=True):
        kept = name in ORIGINAL_SIZE and keeps_original_sizes(passthrough)
        if (name in written and not kept) or names.count(name) > 1:
            part = next((part for part in (CAPTION, KEY) if name == origin == part.usual[0][0]), None)
            kind = passthrough.field(names.index(name)).type
            if part is not None and names.count(name) == 1 and not (part.fits(kind) or part.may_hold(kind)):
                raise UsageError(
                    f"{where}: column {origin} is {kind}, and {part.title} is {part.wanted}; if it is something else, "
                    f"rename it ({origin}=NAME), since vqbeam writes {part.title} under that name",
                    option="rename",
                )
            raise UsageError(
                f"{where}: column {origin} would be written as {name}, a name that is taken; "
                f"rename it ({origin}=NAME), or choose columns without it",
                option="rename",
            )


def sample_schema(
    request: InputRequest, fields: pa.Schema, extensions: Iterable[str], where: str, members: pa.Schema | None = None
) -> InputSchema:
    """The schema of a job whose rows are groups of files (WebDataset samples, images with siblings).

    `fields` are those of the json members, `extensions` of the members seen, `members` the types of those that can pass
    through as columns. Raises `UsageError`.
    """
    picker = ColumnPicker(fields, where)
    seen = sorted(set(extensions))
    there = f"the files of a sample end in {', '.join(seen) or 'nothing'}, and the json has {listing(fields)}"
    if request.image_column and request.image_column not in seen:
        raise UsageError(f"{where} has no {request.image_column} files; {there}", option="image_column")
    caption: str | None = "txt"
    caption_field: str | None = None
    if request.caption_column and request.caption_column in fields.names:
        caption, caption_field = None, request.caption_column
        picker.named(request.caption_column, CAPTION)
    elif request.caption_column:
        caption = request.caption_column
        if caption not in seen:
            raise UsageError(f"{where} has nothing called {caption}; {there}", option="caption_column")
    else:
        caption = "caption" if "caption" in seen and "txt" not in seen else "txt"
        caption_field = picker.guess(FIRST_CAPTION if caption in seen else CAPTION)
    schema = InputSchema(
        kind=request.kind,
        image=request.image_column,
        caption=caption,
        caption_field=caption_field,
        caption_is_list=caption_field is not None and is_list(fields.field(caption_field).type),
        key=picker.find(FIRST_KEY, request.key_column),
        status=status_column(fields),
        uri_schemes=request.uri_schemes or (),
        reading=READING,
    )
    passing = _passing_members(request, fields, members or pa.schema([]), schema)
    columns = pa.schema([*fields, *passing])
    schema = with_passthrough(request, columns, where, schema)
    return replace(schema, members=tuple(name for name in schema.origins if name in passing.names))


def _passing_members(request: InputRequest, fields: pa.Schema, members: pa.Schema, schema: InputSchema) -> pa.Schema:
    """The members of samples that pass through as columns: those that the user chose or renamed, or all that play no
    part, are no further image, and whose names the json and the command do not use."""
    asked = {*(request.columns or ()), *dict(request.rename)}
    taken = {*fields.names, *request.written, schema.image, schema.caption}
    further_image = {name for name in members.names if name.rpartition(".")[2] in IMAGE_EXTENSIONS}
    return pa.schema(
        [
            member
            for member in members
            if member.name not in fields.names
            and (member.name in asked or (request.columns is None and member.name not in taken | further_image))
        ]
    )
