"""The names that a job writes in its output folder: what is deleted with it, and what is no input of it."""

from __future__ import annotations

from pipelines.command import JobCommand, find_job
from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import CARD, CONTACT_SHEET, EVALUATION, FILE_FOLDERS, INDEX, REPORT, SORTED
from transforms.ledger.plan import copied_plan, load_plan
from transforms.outputs.layout import main_folders


def written_folders(command: JobCommand | None) -> tuple[str, ...]:
    """The folders that a command writes rows and images to, tables and tars first; of an unknown command, all."""
    return (*main_folders(), *FILE_FOLDERS) if command is None or command.writes_images else ("data",)


def written_names(output: str) -> list[str]:
    """The folders and files that the job with a plan in `output` writes there; none without a plan."""
    try:
        plan = load_plan(output)
        if plan is None:
            return _splits(output)
    except OutputDamaged:  # names tell enough
        plan = copied_plan(output)
    folders = written_folders(find_job(plan.command) if plan else None)
    names = (*folders, CONTACT_SHEET, REPORT, CARD, EVALUATION, INDEX)
    return [storage.join(output, name) for name in names]


def _splits(output: str) -> list[str]:
    """The folders of an export in splits, of which each has its own plan, and its card."""
    found = splits_of(output)
    return [*found, storage.join(output, CARD)] if found else []


def splits_of(output: str) -> list[str]:
    """The folders of an export in splits; none of another output."""
    plan = load_plan(storage.join(output, SORTED))
    return [storage.join(output, name) for name, _ in plan.fingerprint.get("splits", ())] if plan else []
