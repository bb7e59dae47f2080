"""From parsed flags to the values that planning, launching and the workers take."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from models.image_tokenizer import TokenizerCheckpoint
from pipelines import flags as job_flags
from pipelines.launch import is_local, local_workers
from pipelines.planned_models import PlannedModel, anywhere
from pipelines.planning import LEAST_ROWS, PlanRequest
from pipelines.run import RunOptions
from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.request import Kind
from transforms.ledger.plan import Plan
from transforms.work.step import ModelSettings


def plan_request(
    args: argparse.Namespace,
    command: str,
    kind: Kind,
    models: tuple[PlannedModel, ...],
    options: Mapping[str, Any],
    beam_args: list[str],
    *,
    backend: str = "torch",
    pictures_per_row: int = 1,
    least_rows: int = LEAST_ROWS,
    fit_batch: bool = False,
) -> PlanRequest:
    """`beam_args` tell whether the workers are this machine and, if so, may say how many they are."""
    if storage.has_wildcard(args.output):
        raise UsageError(f"--output {args.output}: a folder's name without * ? [ is needed")
    local = is_local(beam_args)
    workers = (local_workers(beam_args, args.workers, default=0) or None) if local else args.workers
    return PlanRequest(
        command=command,
        output=storage.absolute(args.output),
        input=job_flags.input_request(args, kind),
        inputs=vars(args).get("listed", {}).get(kind),
        models=models,
        backend=backend,
        device=args.device,
        dtype=args.dtype,
        options=options,
        run=job_flags.RunSettings(args.rows_per_shard, args.batch_size, workers, args.threads_per_worker),
        limit=args.limit,
        local=local,
        pictures_per_row=pictures_per_row,
        least_rows=least_rows,
        fit_batch=fit_batch,
    )


def run_options(args: argparse.Namespace, unit: str, look: str) -> RunOptions:
    return RunOptions(
        overwrite=args.overwrite,
        extend=args.extend,
        retry_rejected=args.retry_rejected,
        dry_run=args.dry_run,
        max_error_rate=args.max_error_rate,
        temp_dir=args.temp_dir,
        unit=unit,
        look=look,
    )


def model_settings(args: argparse.Namespace, model: str, plan: Plan, cache: str) -> ModelSettings:
    """How workers run the model: what this command says, else what the stored plan resolved."""
    return ModelSettings(
        name=anywhere(model),
        cache_dir=cache,
        backend=args.backend,
        device=args.device,
        dtype=str(plan.fingerprint["dtype"]),
        batch_size=args.batch_size or int(plan.settings["batch_size"]),
        threads=threads(args, plan),
        pixel_range=args.pixel_range,
    )


def threads(args: argparse.Namespace, plan: Plan) -> int:
    """Threads of a worker, for torch and for image decoding alike."""
    return args.threads_per_worker or int(plan.settings["threads_per_worker"])


def provenance(command: str, checkpoint: TokenizerCheckpoint, plan: Plan) -> dict[str, Any]:
    """What every table says of its making: enough to decode its codes, nothing that changes from run to run."""
    spec = checkpoint.spec
    identity = plan.fingerprint.get("vqgan", plan.fingerprint)  # that of the one model of a job lies flat in there
    return {
        "command": command,
        "model": plan.settings["model"],
        "model_source": plan.settings["model_source"],
        "weights_id": identity["weights_id"],
        "codebook_id": checkpoint.codebook_id(),
        "resolution": spec.resolution,
        "grid": spec.grid,
        "codebook_size": spec.codebook_size,
        "pixel_range": list(spec.pixel_range),
        "dtype": plan.fingerprint["dtype"],
        "schema_version": plan.fingerprint["schema_version"],
    }


def vqbeam_version() -> str:
    try:
        return importlib.metadata.version("vqbeam")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
