"""Tells which files came to the input, or went, since a stored plan was made: a rerun does what was planned."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest

from pipelines.sizing import PlanRequest
from pipelines.terminal import say
from transforms import storage
from transforms.errors import ShardFailed, UsageError
from transforms.inputs.file_list import FileList, Found
from transforms.inputs.formats.files import named_images
from transforms.inputs.formats.format import Inputs
from transforms.inputs.request import InputSchema
from transforms.inputs.uri_set import UriSet, UriWalk, uri_lookup
from transforms.inputs.uris import WEB_SCHEMES, scheme_of
from transforms.ledger.plan import Plan
from transforms.ledger.stored_shards import StoredSources

AFFORDABLE = 10_000  # files in a plan: to list so many again takes a store seconds
NAMES_SHOWN = 3


def tell_of_changes(request: PlanRequest, plan: Plan) -> None:
    """Prints how many files are not in the plan, and how many of it are gone, if any. The job runs in any case."""
    if not _is_affordable(request, plan):
        return
    try:
        inputs = request.job.files.find()
    except (UsageError, ShardFailed) as error:
        say(f"note: the input is not what it was when it was planned: {error}", file=sys.stderr)
        return
    stored = StoredSources(request.job.output, plan)
    both = zip_longest(stored.uris(), (found.uri for found in inputs.files))
    if not inputs.described and all(uri == found for uri, found in both):
        return  # most often, and at little cost
    known = uri_lookup(lambda: stored, stored.are_sorted)
    listed = [_lookup(files) for files in (inputs.described, inputs.files, inputs.beside) if files]
    unplanned, first_unplanned = _counted(_unplanned(inputs, known, plan))
    gone, first_gone = _counted(uri for uri in stored.uris() if not any(uri in files for files in listed))
    told = []
    if unplanned:
        told.append(f"{_files(unplanned, 'file')} not in the plan: --extend adds {'it' if unplanned == 1 else 'them'}")
    if gone:
        told.append(f"{_files(gone, 'planned file')} gone")
    if told:
        say("; ".join(told), file=sys.stderr)
    for label, count, names in (("not in the plan", unplanned, first_unplanned), ("gone", gone, first_gone)):
        if names:
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            say(f"  {label}: {', '.join(names)}{more}", file=sys.stderr)


def _is_affordable(request: PlanRequest, plan: Plan) -> bool:
    """Local folders are listed again, stores only for small plans; no job with a limit, whose plan leaves files out."""
    patterns = request.task.input.patterns
    if not patterns or plan.fingerprint.get("limit"):
        return False
    if any(scheme_of(pattern) in WEB_SCHEMES for pattern in patterns):
        return False
    small = sum(segment.sources for segment in plan.segments) <= AFFORDABLE
    return request.job.files.listed is not None or small or all(map(storage.is_local, patterns))


def _lookup(files: Sequence[Found]) -> UriSet | UriWalk:
    return uri_lookup(lambda: ((found.uri, "") for found in files), isinstance(files, FileList) and files.is_sorted)


def _unplanned(inputs: Inputs, known: Container[str], plan: Plan) -> Iterator[str]:
    """The files that extending the plan would add."""
    schema = InputSchema.from_json(plan.schema)
    named = UriSet((uri, "") for uri in named_images(inputs.described, schema))
    for found in chain(inputs.described, inputs.files):
        if found.uri not in known and found.uri not in named:
            yield found.uri


def _counted(uris: Iterable[str]) -> tuple[int, list[str]]:
    """Their number, and the first of them."""
    every = iter(uris)
    first = list(islice(every, NAMES_SHOWN))
    return len(first) + sum(1 for _ in every), first


def _files(count: int, what: str) -> str:
    return f"1 {what} is" if count == 1 else f"{count:,} {what}s are"
