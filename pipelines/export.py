"""`vqbeam export`: tables of tokens -> shuffled shards of equal size, by split, without duplicates, for training."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines import flags
from pipelines.command import Command, JobCommand
from pipelines.flag_values import option, share
from pipelines.planned_models import NO_MODEL, PlannedModel
from pipelines.request import JobOptions, Task
from pipelines.scratch import scratch_folder
from pipelines.stages import stage
from pipelines.terminal import say
from pipelines.token_tables import SIDES, grid_text, of_one_kind
from transforms import storage
from transforms.errors import UsageError
from transforms.ledger.folder import CARD, SORTED, SUCCESS
from transforms.outputs.layout import TOKEN_LAYOUTS, find_token_layout

if TYPE_CHECKING:
    from transforms.inputs.request import InputSchema
    from transforms.ledger.plan import Plan
    from transforms.ledger.totals import Totals
    from transforms.ledger.types import Shard
    from transforms.work.export import CodeGrid, Placing, Shuffle

SORTED_ROWS = 1 << 16  # of a sorted table, at least
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Splits = tuple[tuple[str, float], ...]


def splits(text: str) -> Splits:
    """ "train=0.98,val=0.02"."""
    found: list[tuple[str, float]] = []
    for part in text.split(","):
        name, _, text_of_share = part.partition("=")
        try:
            found.append((name, float(text_of_share)))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=SHARE,... such as train=0.98,val=0.02") from None
    names = [name for name, _ in found]
    for name, size in found:
        if not NAME.fullmatch(name) or name == "data":
            raise argparse.ArgumentTypeError(f"{text!r}: {name!r} cannot be the name of a split, which names a folder")
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{text!r}: {name} is there twice")
        if sum(name.replace("-", "_") == other.replace("-", "_") for other in names) > 1:
            raise argparse.ArgumentTypeError(f"{text!r}: {name} and another differ by a hyphen, which datasets cannot")
        if not size > 0:
            raise argparse.ArgumentTypeError(f"{text!r}: {name} would be empty, which readers of a mixture fail on")
    total = sum(size for _, size in found)
    if abs(total - 1) > 1e-9:
        raise argparse.ArgumentTypeError(f"{text!r}: the shares add up to {total:g}, not to 1")
    return tuple(found)


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_input_flags(parser, "codes")
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="DIR", help="a folder, local or on any fsspec URL")
    group.add_argument("--overwrite", action="store_true", help="first remove what an earlier export wrote there")
    flags.add_dry_run_flags(group)
    group.add_argument(
        "--max_error_rate",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="rejected rows tolerated (default 0.1)",
    )
    layouts = "; ".join(f"{name}: {text}" for name, (_, text) in TOKEN_LAYOUTS.items())
    group.add_argument("--layout", choices=tuple(TOKEN_LAYOUTS), default="parquet", help=f"{layouts} (default parquet)")
    group.add_argument("--rows_per_shard", **flags.COUNT, help="in every shard but the last of a split (default 10000)")
    group = parser.add_argument_group("rows")
    group.add_argument(
        "--shuffle",
        type=option("seed"),
        default=0,
        metavar="SEED",
        help="decides the order of rows (default 0)",
    )
    group.add_argument(
        "--split",
        type=splits,
        default=(),
        metavar="NAME=SHARE,...",
        help="folders that share the rows by a hash of the key, or of the column of --dedup, so that a row stays where "
        "it is when rows are added; default: none",
    )
    group.add_argument(
        "--dedup",
        metavar="COLUMN",
        help="key, caption, encoding or another column: of rows that agree in it one stays; default: all stay",
    )
    group = parser.add_argument_group("how it runs")
    group.add_argument("--workers", **flags.COUNT, help="on this machine (default 1)")
    group.add_argument("--temp_dir", metavar="DIR", help="folder for temporary files; default: the system's")
    group.add_argument("--no_wait", **flags.NO_WAIT)
    parser.set_defaults(workers=0, batch_size=0, threads=0, device="cpu", model_cache="")


@dataclass(frozen=True)
class Export:
    """One export, and the jobs that it is done by."""

    job: JobOptions
    layout: str
    shuffle: Shuffle
    grid: CodeGrid
    made_by: Mapping[str, Any]

    @property
    def folders(self) -> dict[str, str]:
        """The output folder of each split; one without a name if there are none."""
        names = [name for name, _ in self.shuffle.splits]
        return {name: storage.join(self.job.output, name) for name in names} or {"": self.job.output}

    @property
    def sorted(self) -> str:
        return storage.join(self.job.output, SORTED)

    def task(self, work: Placing, planned: Any = None, conclude: Any = None, **choices: Any) -> Task:
        from transforms.work.export import BATCH, MOVED, ORDER_VERSION, WRITTEN

        shuffle = self.shuffle
        instead = tuple(name for name, _ in find_token_layout(self.layout).columns or ())
        identity = {
            "shuffle": shuffle.seed,
            "dedup": shuffle.value if shuffle.unique else "off",
            "splits": [list(split) for split in shuffle.splits],
            "order_version": ORDER_VERSION,
            **({"by_view": True} if shuffle.views else {}),
            **choices,
        }
        nothing = PlannedModel("model", "none", NO_MODEL, "rows are moved only", {}, 1.0, lambda device, gpu: BATCH)
        about = {**self.made_by, "command": "export", **identity}
        return Task(
            models=(nothing,),
            fingerprint=identity,
            input=replace(self.job.files.request, written=WRITTEN, moved=(*MOVED, *instead)),
            work=lambda plan, settings: work,
            provenance=lambda plan: about,
            look=self.job.output,
            planned=planned,
            conclude=conclude,
            quiet=True,
            row_bytes=None,
        )

    def sort(self, beam_args: list[str]) -> int:
        """Have the tables sorted, unless they are."""
        from pipelines.run import run_job
        from transforms.work.export import Sort

        job = replace(
            self.job, output=self.sorted, rows_per_shard=max(SORTED_ROWS, self.job.rows_per_shard or 0), overwrite=False
        )
        with scratch_folder(job.temp_dir) as scratch:
            return run_job(SORT, job, self.task(Sort(self.shuffle, self.grid)), beam_args, scratch)

    def gathering(self, name: str, shards: Sequence[Shard] | None = None) -> tuple[JobOptions, Task]:
        """The job of one split; without `shards` it has a stored plan."""
        from transforms.work.export import Gather

        work = Gather(self.shuffle, self.grid, self.layout)
        task = self.task(
            work, lambda: (self.schema(), shards or []), partial(self.conclude, name), layout=self.layout, split=name
        )
        return replace(self.job, output=self.folders[name]), task

    def conclude(self, name: str, plan: Plan, totals: Totals) -> None:
        """Write the index of a split, if readers of its layout ask for one."""
        from transforms.outputs.index import write_index

        index, output = find_token_layout(self.layout).index, self.folders[name]
        if index:
            write_index(output, index, self.grid.codes_per_image, self.grid.codebook_size)

    def plan_of(self, name: str, beam_args: list[str]) -> Plan | None:
        """The stored plan of a split. Raises `UsageError` if something else is in its folder."""
        from pipelines.engines import is_local
        from pipelines.planning import find_plan
        from pipelines.sizing import PlanRequest

        return find_plan(PlanRequest(GATHER, *self.gathering(name), is_local(beam_args)))

    def gather(self, name: str, shards: Sequence[Shard] | None, beam_args: list[str]) -> int:
        """Write the shards of one split."""
        from pipelines.run import run_job

        job, task = self.gathering(name, shards)
        with scratch_folder(job.temp_dir) as scratch:
            return run_job(GATHER, job, task, beam_args, scratch)

    def removed(self) -> Export:
        """Delete what is in the output, and go on without `overwrite`. Raises `UsageError` if that is the input."""
        from pipelines.planning import remove_output
        from transforms.outputs.card import remove_split_card

        inside = tuple(storage.join(folder, "") for folder in (*self.folders.values(), self.sorted))
        for found in self.job.files.find().files:
            if found.uri.startswith(inside):
                raise UsageError(f"--overwrite would delete the input {found.uri}: choose another --output")
        for folder in self.folders.values():
            remove_output(folder)
        storage.delete_folder(self.sorted)
        remove_split_card(self.job.output)
        return replace(self, job=replace(self.job, overwrite=False))

    def is_sorted(self, *, whole: bool = False) -> bool:
        """Whether each sorted table that has a mark is there or, `whole`, each that was planned."""
        from transforms.ledger.totals import mark_uris

        done = {uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in mark_uris(self.sorted)}
        files = storage.list_files(storage.join(self.sorted, "data"))
        there = {info.uri.rsplit("/", 1)[-1].removesuffix(".parquet") for info in files}
        return done <= there and not (whole and len(done) < self.plan_of_sorted().shards)

    def write_card(self) -> None:
        """Write the dataset card above the splits, by which they load by the name of the output."""
        from transforms.outputs.card import LOADED, rows_in, write_split_card

        main = find_token_layout(self.layout).main
        if self.shuffle.splits and main.suffix in LOADED:
            rows = rows_in(main)
            if not write_split_card(self.job.output, {name: f"{name}/{rows}" for name in self.folders}):
                say(
                    f"{self.job.output}/{CARD} stays as it is: `load_dataset` reads the splits if the card has "
                    f"`configs` with a `split` and the `path` SPLIT/{rows} for each",
                    file=sys.stderr,
                )

    def schema(self) -> InputSchema:
        """How the sorted tables are read."""
        from transforms.batch import CAPTION, ENCODING, KEY
        from transforms.inputs.request import READING, InputSchema

        read = InputSchema.from_json(self.plan_of_sorted().schema)
        return InputSchema(
            kind="codes",
            key=KEY,
            caption=CAPTION,
            caption_is_list=read.caption_is_list,
            codes=ENCODING,
            passthrough=read.passthrough,
            origins=tuple(read.passthrough.names),
            chosen=True,
            uri_schemes=read.uri_schemes,
            reading=READING,
        )

    def plan_of_sorted(self) -> Plan:
        from transforms.ledger.plan import load_plan

        plan = load_plan(self.sorted)
        assert plan is not None, "the tables have been sorted"
        return plan

    def shards(self) -> dict[str, list[Shard]]:
        """The shards of each split. Raises `UsageError` if one has none."""
        from transforms.inputs.plan import plan_sources
        from transforms.inputs.request import InputRequest
        from transforms.inputs.sorted_runs import equal_shards

        tables = InputRequest((storage.join(self.sorted, "data", "*.parquet"),), kind="codes", input_format="parquet")
        found = plan_sources(tables, 1 << 62)
        sources = list(dict.fromkeys(piece.slice.source for piece in found.pieces))
        rows = self.job.rows_per_shard or 0
        planned = {
            name: equal_shards(sources, number, rows, unique=self.shuffle.unique)
            for number, name in enumerate(self.folders)
        }
        for name, shards in planned.items():
            if not shards:
                raise UsageError(f"{name} would get no row, and readers fail on an empty split: leave it out", "split")
        return planned


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Sort what is not sorted, then write what is not written. Raises `UsageError` and `ShardFailed`."""
    from pipelines.export_summary import print_export
    from transforms.ledger.plan import load_plan
    from transforms.ledger.totals import pending_shards
    from transforms.outputs.index import check_index

    args.rows_per_shard = args.rows_per_shard or 10_000
    with stage("Looking at the input"):
        export = find_export(args)
    if export.job.dry_run:
        return export.sort(beam_args)
    if export.job.overwrite:
        export = export.removed()
    plans = {name: export.plan_of(name, beam_args) for name in export.folders}
    if find_token_layout(export.layout).index:
        for folder in export.folders.values():
            check_index(folder)
    planned: dict[str, list[Shard]] = {}
    already = True
    if not all(plan and not pending_shards(export.folders[name], plan.shards) for name, plan in plans.items()):
        already = False
        if load_plan(export.sorted) and not export.is_sorted():
            storage.delete_folder(export.sorted)  # an earlier run was done with them
        code = export.sort(beam_args)
        if code:
            return code
        if not export.is_sorted(whole=True):
            say("The tables are being sorted: run the same command again once that job has ended", file=sys.stderr)
            return 0
        if None in plans.values():
            with stage("Reading where rows go"):
                planned = export.shards()
    for name in export.folders:
        if name:
            say(f"split {name}", file=sys.stderr)
        code = export.gather(name, planned.get(name), beam_args)
        if code:
            return code
    if all(storage.exists(storage.join(folder, SUCCESS)) for folder in export.folders.values()):
        storage.delete_folder(storage.join(export.sorted, "data"))
        export.write_card()
        print_export(export.job.output, export.sorted, export.folders, already=already)
    return 0


def find_export(args: argparse.Namespace) -> Export:
    """The export that the flags ask for. Raises `UsageError`."""
    from transforms.batch import CAPTION, ENCODING, KEY, VIEW

    job = flags.job_options(args, "codes")
    uris = [found.uri for found in job.files.find().files]
    first = of_one_kind(uris, args.code_column)
    value = args.dedup or KEY
    if value not in (KEY, CAPTION, ENCODING, *first.columns):
        raise UsageError(f"{uris[0]} has no column {value}; it has {', '.join(first.columns)}", "dedup")
    if args.columns is not None and value not in (KEY, CAPTION, ENCODING, *args.columns):
        raise UsageError(f"{value} is not among columns, which leaves it out: add it there", "dedup")
    from transforms.work.export import CodeGrid, Shuffle  # torch takes seconds: not for what has been refused by now

    made_by = dict(job.files.made_by or {})
    kept = first.columns if args.columns is None else args.columns
    if first.views and (VIEW not in kept or VIEW in dict(args.rename)):
        raise UsageError(
            f"{uris[0]} holds several views of each image, which the column {VIEW} tells apart: keep it, by its name"
        )
    lost = [side for side in SIDES if side not in kept or side in dict(args.rename)]
    if first.by_row and first.grid and first.grid[0] != first.grid[1] and lost:
        raise UsageError(
            f"{uris[0]} has grids of {grid_text(first.grid)} codes, which {' and '.join(SIDES)} say: keep "
            f"{' and '.join(lost)}, by name"
        )
    shuffle = Shuffle(args.shuffle, value, bool(args.dedup), args.split, first.views)
    return Export(job, args.layout, shuffle, CodeGrid(first.length, first.size), made_by)


def _no_options(args: argparse.Namespace) -> Any:
    raise NotImplementedError


SORT = JobCommand("export: sort", "Sort tables.", add_flags, _no_options, _no_options, unit="rows")
GATHER = JobCommand("export", "Gather shards.", add_flags, _no_options, _no_options, writes_images=True, unit="rows")
COMMAND = Command(
    "Shuffle tables of tokens into shards of equal size for training: Parquet, WebDataset, MDS and others, by "
    "split, without duplicates. Resumes by itself.",
    add_flags,
    run,
    launches=True,
    examples=(
        "vqbeam export --input tokens/data --output shuffled --shuffle 1",
        "vqbeam export --input tokens/data --output packed --layout webdataset",
    ),
)
