"""Makes, resumes, extends and describes the stored plan of a job."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from models.devices import FASTEST
from models.processor import multiplies_bfloat16, multiplies_float16
from pipelines.another_job import what_it_takes
from pipelines.command import find_job
from pipelines.sizing import (
    PlanRequest,
    convolutions,
    default_rows_per_shard,
    drawing,
    dtype,
    fitted,
    gpu_multiplies,
    has_own_number,
    resolved_settings,
)
from pipelines.terminal import say
from pipelines.written import written_folders
from transforms import storage
from transforms.batch import IMAGE
from transforms.errors import OutputDamaged, UsageError, amount
from transforms.inputs.file_list import Found
from transforms.inputs.formats import count_rows
from transforms.inputs.formats.format import Inputs
from transforms.inputs.grid import check_grid
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.provenance import same_content
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.uri_set import UriSet, UriWalk, uri_lookup
from transforms.ledger.folder import CONFIG, CONTACT_SHEET, EVALUATION, LAST_RUN, REPORT, SUCCESS, OutputFolder
from transforms.ledger.plan import (
    EARLIER,
    RESTORE,
    UNSAID,
    AnotherJob,
    Plan,
    check_fingerprint,
    copied_plan,
    load_plan,
    store_segment,
)
from transforms.ledger.remove import remove_plan, remove_shards
from transforms.ledger.stored_shards import StoredSources, source_state
from transforms.ledger.totals import mark_uris
from transforms.ledger.types import Shard, Slice
from transforms.outputs.card import remove_card
from transforms.outputs.index import remove_index
from transforms.outputs.layout import main_objects

COLUMNS = ("image_column", "code_column", "caption_column", "key_column")
CHANGES_SHOWN = 5
LEAST_CAPABILITY = (7, 5)  # of GPUs that builds of torch for CUDA 13 have code for
COMPARED_AT_ONCE = 100_000  # files whose version is another than planned


def fingerprint(request: PlanRequest) -> dict[str, Any]:
    """The choices that decide the output; None for those that were left open and depend on the machine."""
    job, task = request.job, request.task
    asked = task.input
    prompts: dict[str, Any] = {}
    if asked.kind == "prompts":  # texts by their hash, since they may be long
        texts = hashlib.sha256(json.dumps(asked.prompts).encode()).hexdigest() if asked.prompts else "files"
        prompts = {"prompts": texts, "key_from": asked.key_from}
    identities: dict[str, Any] = {}
    for model in task.models:
        identities |= model.identity if model.role == "model" else {model.role: model.identity}
    return {
        "command": request.command.name,
        "schema_version": request.command.schema_version,
        "input": {
            "patterns": [storage.absolute(pattern) for pattern in asked.patterns],
            "format": asked.input_format or "guessed",
            **{name: getattr(asked, name) or "guessed" for name in COLUMNS},
            "columns": "all" if asked.columns is None else list(asked.columns),
            "rename": [list(pair) for pair in asked.rename],
            "uri_schemes": "the dataset's" if asked.uri_schemes is None else sorted(asked.uri_schemes),
            **({"on_fetch_error": asked.on_fetch_error} if asked.kind == "images" else {}),
            **({} if asked.kind == "codes" else {"quoting": asked.quoting}),
            **prompts,
        },
        **identities,
        "backend": task.backend,
        "dtype": None if job.settings.dtype in ("auto", FASTEST) else job.settings.dtype,
        "rows_per_shard": job.rows_per_shard,
        "limit": job.limit or 0,
        **task.fingerprint,
    }


def find_plan(request: PlanRequest) -> Plan | None:
    """The plan stored in the output folder, if it is this job's. Raises `UsageError` with what differs if not."""
    output = request.job.output
    plan = load_plan(output)
    if plan is None:
        try:
            _check_empty(output, written_folders(request.command))
            return None
        except (UsageError, OutputDamaged):
            plan = load_plan(output)  # unless another run has begun just now
            if plan is None:
                raise
    try:
        other_versions(request, plan)
    except AnotherJob as error:
        raise error.with_more(what_it_takes(request, plan, error)) from error
    return plan


def other_versions(request: PlanRequest, plan: Plan) -> dict[str, tuple[str, str]]:
    """As `check_fingerprint` gives them, which raises `UsageError` if the plan is that of another job."""
    job = request.job
    return check_fingerprint(job.output, plan, fingerprint(request), job.allow_other_versions)


def provenance(request: PlanRequest, plan: Plan) -> Mapping[str, Any]:
    """What the tables say of their making; under other versions than the plan's with both of each."""
    versions = other_versions(request, plan)

    def told(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {inner: told(inner, item) for inner, item in value.items()}
        return list(versions[name]) if name in versions and value in versions[name] else value

    return {name: told(name, value) for name, value in request.task.provenance(plan).items()}


def make_plan(request: PlanRequest) -> tuple[Plan, Sequence[Shard]]:
    """A new plan, not stored yet, and its shards."""
    job, task = request.job, request.task
    settings = resolved_settings(request)
    rows = job.rows_per_shard or default_rows_per_shard(request, settings)
    schema, shards, passed_over = _planned(request, rows)
    if not shards:
        raise UsageError(f"no rows in {', '.join(task.input.patterns) or '--prompt'}: nothing to do")
    if task.fit_batch and not job.settings.batch_size and not has_own_number(schema.options):
        settings["batch_size"] = fitted(settings["batch_size"], shards, task.images_per_row)
    device, chosen = str(settings["device"]), dtype(request, settings)
    _tell_of_device(request, device, chosen)
    resolved = fingerprint(request) | {
        "dtype": chosen,
        "rows_per_shard": rows,
        "sealed": True,
        "convolutions": convolutions(request, device, chosen),
        **drawing(request, device, chosen),
        **({"image_feature": True} if task.written and IMAGE in dict(task.written.layout.columns) else {}),
    }
    for path, value in {**_open_input(task.input), **task.open}.items():
        _settle(resolved, path.split("."), value)
    for name in UNSAID:
        if resolved.get(name, ...) == EARLIER[name]:
            del resolved[name]
    return Plan(request.command.name, resolved, settings, schema.to_json(), passed_over=passed_over), shards


def _planned(request: PlanRequest, rows: int) -> tuple[InputSchema, Sequence[Shard], Mapping[str, Any]]:
    """The schema and the shards of a new plan, and what is passed over."""
    job, task = request.job, request.task
    if task.planned:
        return (*task.planned(), {})
    found = plan_sources(task.input, rows, inputs=_listed(request))
    if task.tokenizer:
        check_grid(found.pieces, found.schema, task.tokenizer)
    _tell_of_moved(request, found.schema)
    shards = make_shards(found.pieces, rows)
    if job.limit:
        shards = limited(shards, job.limit, found.schema)
    return found.schema, shards, found.passed.to_json()


def _listed(request: PlanRequest) -> Inputs | None:
    """The files of the input, listed once; None if it has none."""
    return None if request.task.input.prompts else request.job.files.find()


def _open_input(asked: InputRequest) -> dict[str, Any]:
    """As `Task.open`, for choices of the input that commands share."""
    fetch = {"input.on_fetch_error": "reject"} if asked.kind == "images" else {}
    return fetch | ({} if asked.kind == "codes" else {"input.quoting": "auto"})


def _settle(choices: dict[str, Any], path: list[str], value: Any) -> None:
    """Give a choice its value if it was left open."""
    for name in path[:-1]:
        inner = dict(choices[name])  # not the one that others hold
        choices[name] = inner
        choices = inner
    if choices.get(path[-1]) is None:
        choices[path[-1]] = value


def _tell_of_moved(request: PlanRequest, schema: InputSchema) -> None:
    """Tell which columns are renamed because the command writes columns of these names."""
    names = zip(schema.origins, schema.passthrough.names, strict=True)
    asked = request.task.input
    moved = [f"{old} as {new}" for old, new in names if old in asked.moved and old not in dict(asked.rename)]
    if moved:
        say(
            f"{request.command.name} writes columns that the input has, too; the input's are kept, {', '.join(moved)} "
            "(--rename gives other names, --columns leaves them out)",
            file=sys.stderr,
        )


def _tell_of_device(request: PlanRequest, device: str, chosen: str) -> None:
    """Say which dtype is the fastest, and warn of one that the processor or the GPU has no arithmetic for, and of GPUs
    that torch may have no code for."""
    asked, drawn = request.job.settings.dtype, request.task.drawn
    gpu = None if request.local else request.job.worker_gpu
    if gpu is not None and gpu.capability < LEAST_CAPABILITY:
        say(
            "warning: builds of torch for CUDA 13, such as torch 2.13 of PyPI in the image of the Dockerfile, have no "
            "code for this kind of GPU: the image needs one for CUDA 12",
            file=sys.stderr,
        )
    if device == "cuda" and not gpu_multiplies(request):
        if asked == "auto":
            say(
                "This kind of GPU has no arithmetic for bfloat16, so --dtype auto is float32; --dtype float16 is "
                "faster, for models whose numbers stay below 65,504",
                file=sys.stderr,
            )
        if chosen == "bfloat16":
            say(
                "warning: this kind of GPU has no arithmetic for bfloat16, and may fail or be slower than in float32; "
                "--dtype fastest chooses by the GPU",
                file=sys.stderr,
            )
    if asked == FASTEST:
        say(f"--dtype fastest: {chosen} on this {device}", file=sys.stderr)
    compiled = asked == "bfloat16" and drawn and drawn.is_large(asked)
    fast = {"bfloat16": multiplies_bfloat16, "float16": multiplies_float16}.get(asked)
    if fast and device == "cpu" and request.local and not compiled and not fast():
        say(
            f"warning: this processor has no fast arithmetic for {asked}, and float32 takes less time; --dtype fastest "
            "chooses by the processor",
            file=sys.stderr,
        )


def extend_plan(request: PlanRequest, plan: Plan) -> tuple[Plan, Sequence[Shard]]:
    """The plan with the files that are passed over now, and shards for the files that it lacks, numbered after its
    own."""
    job, task = request.job, request.task
    if job.limit:
        raise UsageError("--extend and --limit contradict each other")
    stored = StoredSources(job.output, plan)
    known = uri_lookup(lambda: stored, stored.are_sorted)
    rows = int(plan.fingerprint["rows_per_shard"])
    schema = InputSchema.from_json(plan.schema)
    if task.input.kind != "codes":
        task = replace(task, input=replace(task.input, quoting=plan.choice("input.quoting")))
    found = plan_sources(task.input, rows, schema=schema, known=known, inputs=_listed(request))
    _warn_of_changes(stored, known, found.inputs)
    shards = make_shards(found.pieces, rows, first_index=plan.shards)
    return replace(plan, passed_over=found.passed.to_json()), shards


def _warn_of_changes(stored: StoredSources, known: UriSet | UriWalk, inputs: Inputs) -> None:
    """Warn of planned files that have changed: extending adds whole files, never new rows of a planned one."""
    changed = _changed(stored, known, chain(inputs.files, inputs.described, inputs.beside))
    for uri in islice(changed, CHANGES_SHOWN):
        say(
            f"warning: {uri} has changed since it was planned, and --extend leaves it as it was then: put new rows "
            "into a new file, or redo the job with another --output or --overwrite",
            file=sys.stderr,
        )
    more = sum(1 for _ in changed)
    if more:
        say(f"warning: so have {amount(more, 'more files')}", file=sys.stderr)


def _changed(stored: StoredSources, known: UriSet | UriWalk, listed: Iterable[Found]) -> Iterator[str]:
    """The planned files whose content is another now; those of another version are compared with the plan."""
    suspects = (
        found for found in listed if known.has_changed(found.uri, source_state(found.info.size, found.info.version))
    )
    while some := {found.uri: found.info for found in islice(suspects, COMPARED_AT_ONCE)}:
        for source in stored.named(some):
            if not same_content(source, some[source.uri]):
                yield source.uri


def store_plan(request: PlanRequest, plan: Plan, shards: Sequence[Shard]) -> Plan:
    """Store a new plan or segment. Raises `UsageError` if another run was first with another job."""
    stored = store_segment(request.job.output, plan, shards)
    other_versions(request, stored)
    return stored


def limited(shards: Sequence[Shard], limit: int, schema: InputSchema) -> list[Shard]:
    """The first `limit` rows in plan order; rows are counted if a source does not state their number."""
    kept: list[Shard] = []
    left = limit
    for shard in shards:
        parts: list[Slice] = []
        for part in shard.slices:
            if left <= 0:
                break
            rows = min(count_rows(part, left, schema), left)
            parts.append(replace(part, stop=part.start + rows))
            left -= rows
        if parts:
            kept.append(Shard(shard.index, tuple(parts)))
    return kept


def remove_output(output: str, planned: Iterable[Shard] = ()) -> None:
    """Delete what vqbeam wrote into a folder: marks before what they list, tables before the images that they name,
    the plan last, so that an interruption leaves a job that can be resumed. Other files stay, and are named.

    Raises `UsageError` if files are in the way without a plan of vqbeam, or if `planned` shards read what would be
    deleted.
    """
    damaged = False
    try:
        plan = load_plan(output)
        if plan is None:
            _check_empty(output, written_folders(None))
            return
    except OutputDamaged:
        plan, damaged = copied_plan(output), True
    folders = written_folders(find_job(plan.command) if plan else None)
    lost = tuple(storage.join(output, folder, "") for folder in folders)
    for shard in planned:
        for part in shard.slices:
            if part.source.uri.startswith(lost):
                raise UsageError(f"--overwrite would delete the input {part.source.uri}: choose another --output")
    storage.delete(storage.join(output, SUCCESS))
    if damaged:
        told = "has a damaged plan: files that are called as vqbeam calls its own are removed"
        say(f"warning: {output} {told}", file=sys.stderr)
    kept = remove_shards(output, folders, plan.shards if plan else None)
    if kept:
        named = ", ".join(kept[:CHANGES_SHOWN]) + (", ..." if len(kept) > CHANGES_SHOWN else "")
        say(f"warning: {output} keeps {amount(len(kept), 'files')} that vqbeam did not write: {named}", file=sys.stderr)
    remove_card(output, main_objects())
    remove_index(output)
    for name in (CONFIG, CONTACT_SHEET, REPORT, EVALUATION, LAST_RUN):
        storage.delete(storage.join(output, name))
    remove_plan(output)


def _check_empty(output: str, folders: tuple[str, ...]) -> None:
    """Raises `OutputDamaged` if a plan is gone, and `UsageError` if files are in the way that never had one."""
    for folder in folders:
        if storage.list_files(storage.join(output, folder)):
            if copied_plan(output) or mark_uris(output):
                raise OutputDamaged(f"the plan {OutputFolder(output).shards(0)} is gone: {RESTORE}")
            raise UsageError(f"{output}/{folder} holds files that no plan of vqbeam knows: choose another --output")
