"""The job of the workers of a run: one picklable value, made by the launcher from the stored plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from transforms.batch import IMAGE
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.request import InputSchema, OnFetchError
from transforms.ledger.tables import PROVENANCE_KEY
from transforms.work.work import Work

# What Hugging Face datasets reads in a table: the column holds images, and no structs of bytes.
IMAGE_FEATURE = {"huggingface": json.dumps({"info": {"features": {IMAGE: {"_type": "Image"}}}})}


@dataclass(frozen=True)
class Job:
    """`work` is the command; the rest is what every command needs. `provenance` goes into every table. `device` is as
    the user chose it: "auto", "cpu", "cuda" or "cuda:N"; the `processes` on one machine share its GPUs. `scratch` is
    the folder through which a local run is watched and stopped, None on other runners; temporary files of a worker lie
    in `temp_dir`, None for the system's. `on_fetch_error` "reject": a store or server that fails costs the row, unless
    the shard's sources are there, too. With `take_changed`, sources that changed since the plan are read as they are
    now. Workers elsewhere must have the `versions` of the packages that decide the output."""

    work: Work
    output: str
    schema: InputSchema
    provenance: Mapping[str, Any]
    version: str
    device: str = "auto"
    max_error_rate: float = 0.1
    max_image_bytes: int = MAX_IMAGE_BYTES
    on_fetch_error: OnFetchError = "fail"
    decode_threads: int = 2
    processes: int = 1
    temp_dir: str | None = None
    scratch: str | None = None
    take_changed: bool = False
    shard_timeout: float = 3600.0  # seconds for a shard that is done in a process of its own
    image_feature: bool = False  # tables say that their column of images is one; plans of earlier versions do not
    versions: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""  # the job's id in the seals of its tables; empty for plans of earlier versions, which have none

    def table_schema(self) -> pa.Schema:
        """The columns of tables, or of the JSON in a tar: those of the command, then those that pass through."""
        metadata = {PROVENANCE_KEY: json.dumps(self.provenance, sort_keys=True)}
        if self.image_feature:
            metadata |= IMAGE_FEATURE
        passing = self.schema.passthrough
        own = [pa.field(name, kind) for name, kind in self.work.columns(self.schema) if name not in passing.names]
        return pa.schema([*own, *passing], metadata=metadata)
