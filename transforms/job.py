"""What the workers of a run have to know: one picklable value, made by the launcher from the stored plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from transforms.commit import IMAGE_PATH
from transforms.images import ImageOptions
from transforms.sinks import IMAGE_STRUCT, PictureOptions, output_schema
from transforms.sources import InputSchema
from transforms.sources.fetch import FetchOptions
from transforms.steps import ENCODING, ModelSettings, code_dtype
from transforms.tables import PROVENANCE_KEY


@dataclass(frozen=True)
class Job:
    """`provenance` goes into every table. `scratch` is the folder through which a local run is watched and stopped,
    None on other runners; temporary files of a worker lie in `temp_dir`, None for the system's. `expected_codebook` is
    the codebook that tokens must come from, None for any. `processes` is the number of worker processes on one
    machine, which share its GPUs."""

    command: Literal["encode", "decode"]
    output: str
    schema: InputSchema
    model: ModelSettings
    codes_per_image: int
    codebook_size: int
    provenance: Mapping[str, Any]
    version: str
    image: ImageOptions | None = None
    picture: PictureOptions | None = None
    require_caption: bool = False
    expected_codebook: str | None = None
    max_error_rate: float = 0.1
    fetch: FetchOptions = field(default_factory=FetchOptions)
    decode_threads: int = 2
    processes: int = 1
    temp_dir: str | None = None
    scratch: str | None = None

    def table_schema(self) -> pa.Schema:
        """The columns of `data/*.parquet`, or of the JSON in a tar."""
        columns: list[tuple[str, pa.DataType]] = [("key", pa.string()), ("caption", self.schema.caption_type)]
        if self.picture is None:
            code = pa.from_numpy_dtype(code_dtype(self.codebook_size))
            columns.append((ENCODING, pa.list_(code, self.codes_per_image)))
            columns += [("original_width", pa.int32()), ("original_height", pa.int32())]
        elif self.picture.image_layout == "files":
            columns.append((IMAGE_PATH, pa.string()))
        elif self.picture.image_layout == "parquet":
            columns.append(("image", IMAGE_STRUCT))
        metadata = {PROVENANCE_KEY: json.dumps(self.provenance, sort_keys=True)}
        return output_schema(columns, self.schema.passthrough, metadata)
