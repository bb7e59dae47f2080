"""Gathers what the page says of an output folder: from its marks all counts, from some of its rows all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from transforms import storage
from transforms.batch import CODES
from transforms.errors import OutputDamaged, ShardFailed, UsageError
from transforms.inputs.formats import read_slices
from transforms.inputs.provenance import token_provenance
from transforms.inputs.request import InputSchema
from transforms.ledger.folder import OutputFolder
from transforms.ledger.marks import read_mark
from transforms.ledger.plan import Plan
from transforms.ledger.stored_shards import load_shard
from transforms.ledger.sums import Totals
from transforms.ledger.totals import total_of
from transforms.ledger.types import shard_name
from transforms.report.cards import Card, Cards, singles
from transforms.report.drawn import ROWS, Budget, Draw, Group, drawn_parts, drawn_shards
from transforms.report.links import Links
from transforms.report.reconstructions import Coded, Open
from transforms.report.rejects import Rejects, find_rejects
from transforms.report.rows import open_rows
from transforms.report.speed import Marks, Speed, list_marks, speed_of
from transforms.report.statistics import Measured, Statistics, columns_of, count_codes

SECONDS = 60.0  # each for rows, originals, reconstructions and rejected rows: a page is made in some minutes at most
MOST_ENDS = 10_000  # shards: of more, the ends of tables are not looked at, as `vqbeam status` does
UTMOST = 6  # rows with the least, and with the greatest score


@dataclass(frozen=True)
class Asked:
    """`page` is the folder that the page goes to; `samples` rows or prompts are shown; `opened` gives the tokenizer
    that a table names."""

    page: str
    samples: int
    seed: int
    opened: Open
    seconds: float = SECONDS


@dataclass(frozen=True)
class Section:
    """Rows that are shown together, and a sentence on which they are."""

    title: str
    about: str
    cards: Sequence[Card]


@dataclass
class Report:
    """`looked` are the rows that `statistics` adds up, of shards `shards`; `files` are main objects with their rows and
    bytes, of some shards."""

    output: str
    plan: Plan
    totals: Totals
    marks: Marks
    statistics: Statistics
    shards: Sequence[int]
    coded: Sequence[Coded]
    sections: Sequence[Section]
    rejects: Rejects
    speed: Speed | None
    files: Sequence[tuple[str, int, int]]
    links: Links
    seed: int
    problems: list[str] = field(default_factory=list)


def gather(output: str, plan: Plan, asked: Asked) -> Report:
    """Everything on the page. Raises `UsageError` for an export whose files are not read here, and if no shard is done
    yet."""
    marks = list_marks(output)
    totals = total_of(output, look=len(marks.shards) <= MOST_ENDS)
    if not len(marks.shards):
        raise UsageError(f"{output}: no shard is done yet, so there is nothing to report")
    chosen = drawn_shards(marks.shards, asked.seed)
    problems: list[str] = []
    files = _main_objects(output, chosen, problems)
    if plan.command == "export" and plan.fingerprint["layout"] != "parquet":
        raise UsageError(
            f"{output}: a report reads exports of the layout parquet, and no other; `vqbeam status` counts"
        )
    coded = _tokenizers(output, plan, files)
    statistics, groups = _look(output, plan, files, coded, asked, problems)
    links = Links(output, asked.page)
    cards = Cards(
        output,
        plan,
        coded,
        asked.opened,
        links,
        {shard: path for shard, (path, _, _) in files.items()},
        Budget(asked.seconds),
        Budget(asked.seconds),
        problems,
    )
    return Report(
        output=output,
        plan=plan,
        totals=totals,
        marks=marks,
        statistics=statistics,
        shards=[*files],
        coded=coded,
        sections=_sections(cards, statistics, groups, asked.seed),
        rejects=find_rejects(output, totals.shards_with_rejected, totals.errors, asked.seed, Budget(asked.seconds)),
        speed=speed_of(output, marks),
        files=[*files.values()],
        links=links,
        seed=asked.seed,
        problems=problems,
    )


Files = Mapping[int, tuple[str, int, int]]


def _main_objects(output: str, shards: Sequence[int], problems: list[str]) -> Files:
    """The path, the rows and the bytes of the main object of each shard."""
    found = {}
    for shard in shards:
        try:
            mark = read_mark(OutputFolder(output).stats(shard_name(shard)))
        except (FileNotFoundError, OutputDamaged) as error:
            problems.append(f"shard {shard_name(shard)}: {error}")
            continue
        found[shard] = (mark.objects[0].path, mark.counts.rows_written, mark.objects[0].size)
    return found


def _tokenizers(output: str, plan: Plan, files: Files) -> list[Coded]:
    """Those of the codes that the tables hold, as the first that can be read says. Tars say nothing: of decoded images
    the tables of tokens do."""
    for shard, (path, _, _) in files.items():
        if path.endswith(".parquet") or plan.command == "decode":
            try:
                tokens = None if path.endswith(".parquet") else load_shard(output, shard).slices[0].source.uri
                made = token_provenance(tokens or storage.join(output, path))
            except (FileNotFoundError, ShardFailed):
                made = None
            if made is None:
                continue
            if isinstance(made.get("models"), list):
                ends = [("_1", ""), *((f"_{n}", f"_{n}") for n in range(2, len(made["models"]) + 1))]
                return [Coded(suffix, one, number) for one, (suffix, number) in zip(made["models"], ends, strict=True)]
            return [Coded("", made)] if "codebook_size" in made else []
    return []


def _look(
    output: str, plan: Plan, files: Files, coded: Sequence[Coded], asked: Asked, problems: list[str]
) -> tuple[Statistics, list[Group]]:
    """Read some rows of each shard."""
    suffixes = {one.suffix: int(one.made["codebook_size"]) for one in coded}
    statistics, draw = Statistics(suffixes), Draw(asked.samples, asked.seed)
    columns, budget = columns_of(suffixes), Budget(asked.seconds)
    rows = ROWS // max(1, len(files))
    for shard, (path, _, _) in files.items():
        if budget.is_spent:
            problems.append("the time for reading rows was used up: fewer shards than usual were looked at")
            break
        try:
            with open_rows(output, path) as stored:
                for part in drawn_parts(stored.parts, asked.seed, shard, rows):
                    table = stored.read(part, columns)
                    statistics.add(shard, part.start, table)
                    draw.add(shard, part, table)
            if plan.command == "decode" and coded:
                _count_decoded(output, plan, shard, rows, statistics.codes[coded[0].suffix])
        except (FileNotFoundError, ShardFailed) as error:
            problems.append(str(error))
    return statistics, draw.groups()


def _count_decoded(output: str, plan: Plan, shard: int, rows: int, counts: np.ndarray) -> None:
    """The codes that the images of a shard were made of, which only its input has. Raises `ShardFailed`."""
    read = 0
    for batch in read_slices(load_shard(output, shard).slices, InputSchema.from_json(plan.schema)):
        count_codes(batch.column(CODES), counts)
        read += batch.num_rows
        if read >= rows:
            return


def _sections(cards: Cards, statistics: Statistics, groups: Sequence[Group], seed: int) -> list[Section]:
    """The rows at the lower end of what was measured, a random sample, and both ends of the scores."""
    found: list[Section] = []
    cards.scores = np.sort(statistics.scores.all())
    sample = cards.make(groups)
    measured = statistics.psnr[cards.coded[0].suffix] if cards.coded else Measured()
    worst = [place for place, _ in measured.extremes(UTMOST, least=True)]
    if worst:
        about = "by the PSNR in the tables, of all rows that were looked at, the worst first"
        found.append(Section("The worst reconstructions", about, cards.make(singles(worst))))
    else:
        known = [(card.psnr, i) for i, card in enumerate(sample) if card.psnr is not None]
        low = [i for _, i in sorted(known)[: min(UTMOST, len(known) // 4)]]
        if low:
            found.append(Section("The worst of the sample", "by PSNR, the worst first", [sample[i] for i in low]))
            sample = [card for i, card in enumerate(sample) if i not in low]
    if sample:
        found.append(Section("A random sample", f"drawn by seed {seed}", sample))
    if len(statistics.scores.all()) > 2 * UTMOST:
        for title, least in (("The best scores", False), ("The lowest scores", True)):
            places = [place for place, _ in statistics.scores.extremes(UTMOST, least=least)]
            found.append(
                Section(title, "of all rows that were looked at, the utmost first", cards.make(singles(places)))
            )
    return found
