"""The input options of a command, and the schema that planning fixes from them for every row of a job."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

Kind = Literal["images", "codes", "prompts"]
KeyFrom = Literal["row", "prompt"]
Quoting = Literal["csv", "none"]
OnFetchError = Literal["reject", "fail"]
READING = 2  # see `InputSchema.reading`
TUPLES = ("sidecars", "origins", "uri_schemes", "options", "folders", "members")  # of `InputSchema`, lists in json


def moved_name(name: str, taken: Collection[str]) -> str:
    """The name for a column of the input, whose names are `taken`, if the command itself writes a column `name`."""
    moved = f"input_{name}"
    return moved_name(moved, taken) if moved in taken else moved


@dataclass(frozen=True)
class InputRequest:
    """The input options of a command, as given; None stands for what planning finds out.

    `columns` chooses the pass-through columns by their names in the input, `rename` gives some of them other names.
    `uri_schemes` are those of the URIs in the data that may be opened; None is the scheme of the dataset.
    `on_fetch_error`: what becomes of a row whose URI leads to a store or server that fails, unless it is the dataset's
    own.
    For kind "prompts" `caption_column` names the prompt, `prompts` are prompts given instead of files, and `key_from`
    "prompt" makes the key from the prompt, not from a key column or the row's number. `written` are the names of the
    columns that the command writes itself, which no column that passes through may have. A column with one of the names
    `moved` passes through under its `moved_name`, unless it is renamed: commands whose own output may be their input
    write such columns anew. `caption_required`: a table must have a column of captions.
    `quoting` is that of csv and tsv; "auto", as None, looks at them.
    """

    patterns: tuple[str, ...]
    input_format: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    key_column: str | None = None
    code_column: str | None = None
    columns: tuple[str, ...] | None = None
    rename: tuple[tuple[str, str], ...] = ()
    uri_schemes: tuple[str, ...] | None = None
    on_fetch_error: OnFetchError | None = None
    kind: Kind = "images"
    prompts: tuple[str, ...] = ()
    key_from: KeyFrom = "row"
    written: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    caption_required: bool = False
    quoting: Quoting | Literal["auto"] | None = None


@dataclass(frozen=True)
class InputSchema:
    """The columns of the input that vqbeam reads, and the types of those that pass through.

    `image`, `caption`, `key`, `codes` and `status` are names in the input (for WebDataset and files: a member's
    extension, or a field of the json beside the image). `caption_field` is the json field that is used if a sample has
    no text member. `sidecars` are the extensions found beside image files. `passthrough[i]` has its name in the output,
    `origins[i]` is its name in the input. `chosen`: the user listed the columns, so others are no surprise. `options`
    are the columns that say how a prompt is drawn. `folders` are columns whose values the names of folders hold.
    `quoting`: whether quotation marks in a csv or tsv enclose cells ("csv") or are text ("none"). `members` are those
    of `origins` that are members of a tar, by extension. `reading` is the version of the rules by which samples are cut
    from a tar and unasked changes are counted: plans are cut by numbers of samples, so a plan that was made under rule
    1 is read by it.
    """

    kind: Kind
    image: str | None = None
    caption: str | None = None
    caption_field: str | None = None
    caption_is_list: bool = False
    key: str | None = None
    codes: str | None = None
    status: str | None = None
    sidecars: tuple[str, ...] = ()
    passthrough: pa.Schema = field(default_factory=lambda: pa.schema([]))
    origins: tuple[str, ...] = ()
    chosen: bool = False
    uri_schemes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    key_from: KeyFrom = "row"
    folders: tuple[str, ...] = ()
    quoting: Quoting = "csv"
    members: tuple[str, ...] = ()
    reading: int = 1

    @property
    def caption_type(self) -> pa.DataType:
        return pa.list_(pa.string()) if self.caption_is_list else pa.string()

    @property
    def known(self) -> frozenset[str]:
        """Names in the input that the job uses."""
        parts = (self.image, self.caption, self.caption_field, self.key, self.codes, self.status)
        return frozenset((*self.origins, *self.options)) | {name for name in parts if name}

    def to_json(self) -> dict[str, Any]:
        """Plain values for `plan.json`; the types of the columns as an Arrow IPC schema and, to be read, in words."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "passthrough"}
        values |= {name: list(values[name]) for name in TUPLES}
        return values | {
            "passthrough": {column.name: str(column.type) for column in self.passthrough},
            "passthrough_ipc": base64.b64encode(self.passthrough.serialize().to_pybytes()).decode("ascii"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InputSchema:
        """The inverse of `to_json`; fields that a plan of an earlier version lacks have their defaults."""
        ipc = base64.b64decode(values["passthrough_ipc"])
        plain = {name: value for name, value in values.items() if name not in ("passthrough", "passthrough_ipc")}
        plain |= {name: tuple(plain[name]) for name in TUPLES if name in plain}
        return cls(passthrough=pa.ipc.read_schema(pa.py_buffer(ipc)), **plain)
