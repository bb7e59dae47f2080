"""The page: what was gathered, in words and charts, as one HTML file that loads nothing and runs only its own script.

Every text of the data goes through Jinja's escaping and `visible`; the policy in the head names the page's one style
and one script by their hashes, so that a browser runs no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from transforms import storage
from transforms.errors import ROW_ERRORS, amount, size_text
from transforms.ledger.folder import CARD, CONTACT_SHEET, EVALUATION, PLAN, SUCCESS
from transforms.ledger.totals import most_common
from transforms.ledger.types import STAGES
from transforms.outputs.measures import perplexity
from transforms.report import charts
from transforms.report.gather import Report
from transforms.report.reconstructions import Coded
from transforms.report.statistics import SIZES, common_sizes

HERE = Path(__file__).parent
# Controls that have no place in a line, those that turn the direction of all that follows, and halves of surrogates.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: Any) -> str:
    """A text in which characters that could act unseen are written out, such as \\u202e."""
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


@dataclass(frozen=True)
class Fact:
    name: str
    value: str
    about: str = ""


def render(report: Report, command: str, version: str, failed: Sequence[str] = ()) -> str:
    """The page. `command` is the command line that makes it again; `failed` says which shards failed in the last run,
    and why."""
    style, script = ((HERE / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, (Markup, int, float)) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        report=report,
        totals=report.totals,
        state=_state(report),
        failed=failed,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        looked=_looked(report),
        balance=_balance(report),
        reasons=_reasons(report),
        filters=[*most_common(report.totals.filters)],
        notices=[*most_common(report.totals.notices)],
        charts=_charts(report),
        sizes={kind: common_sizes(found) for kind, found in report.statistics.sizes.items() if found},
        codes=[_codes(report, one) for one in report.coded if report.statistics.codes[one.suffix].any()],
        speed=speed_chart(report),
        stages=_stages(report),
        files=_files(report),
        command=command,
        version=version,
    )


def _policy(style: str, script: str) -> str:
    style_id, script_id = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_id}'; script-src 'sha256-{script_id}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _state(report: Report) -> str:
    if storage.exists(storage.join(report.output, SUCCESS)):
        return "complete"
    done = len(report.marks.shards)
    return "failed" if done == report.plan.shards else f"{done:,} of {amount(report.plan.shards, 'shards')} done"


def _looked(report: Report) -> str:
    """Which rows the page is about, beyond the counts."""
    rows, every = report.statistics.rows, report.totals.rows_written
    if rows == every:
        return f"All {amount(every, 'rows')} were looked at."
    share = f"{rows / every:.2%}" if every else "none"
    return (
        f"{rows:,} of {amount(every, 'rows')} ({share}) were looked at, drawn by seed {report.seed} from "
        f"{len(report.shards):,} of {amount(len(report.marks.shards), 'shards')}. Counts, reasons and codes in use are "
        "of all rows."
    )


def _balance(report: Report) -> Mapping[str, Any]:
    totals = report.totals
    parts = [("written", totals.rows_written), ("rejected", totals.rows_rejected), ("filtered", totals.rows_filtered)]
    whole = max(1, sum(count for _, count in parts))
    x, bars = 0.0, []
    for name, count in parts:
        bars.append((name, count, x, 100 * count / whole))
        x += 100 * count / whole
    return {"parts": bars, "holds": totals.rows_read == sum(count for _, count in parts)}


def _reasons(report: Report) -> list[Mapping[str, Any]]:
    return [
        {
            "code": code,
            "count": count,
            "share": f"{count / max(1, report.totals.rows_read):.2%}",
            "about": ROW_ERRORS.get(code, ""),
            "examples": report.rejects.examples.get(code, ()),
        }
        for code, count in most_common(report.totals.errors)
    ]


def _charts(report: Report) -> list[charts.Chart]:
    """Of rows that were looked at."""
    found: list[charts.Chart | None] = []
    statistics = report.statistics
    for kind in SIZES:
        sizes = statistics.sizes[kind]
        if sizes and (kind == "read" or len(sizes) > 1 or not statistics.sizes["read"]):
            of = "Images as read" if kind == "read" else "Images as written"
            sides = np.repeat([min(pair) for pair in sizes], [*sizes.values()])
            found.append(charts.histogram(f"{of}: shorter side", "pixels", sides, whole=True))
            found.append(charts.ratios(f"{of}: aspect ratio", sizes))
    what = "Prompts" if report.plan.schema["kind"] == "prompts" else "Captions"
    if statistics.letters:
        for title, lengths in (("characters", statistics.letters), ("words", statistics.words)):
            found.append(charts.histogram(f"{what}: length in {title}", title, np.concatenate(lengths), whole=True))
    for one in report.coded:
        name = f" of {one.name}" if len(report.coded) > 1 else ""
        found.append(charts.histogram(f"PSNR{name}", "dB", statistics.psnr[one.suffix].all()))
    found.append(charts.histogram("CLIP score", "cosine of image and text", statistics.scores.all()))
    return [chart for chart in found if chart is not None]


def _codes(report: Report, one: Coded) -> Mapping[str, Any]:
    """How a tokenizer's codes are used. All marks say which are in use, the rows how often; of several tokenizers, and
    of codes in the input, the marks say nothing."""
    counts = report.statistics.codes[one.suffix]
    of_all = len(report.coded) == 1 and report.totals.codes_used > 0
    used = report.totals.codes_used if of_all else int((counts > 0).sum())
    found = perplexity(counts)
    facts = [
        Fact("in use", f"{used:,} of {len(counts):,}", "of all rows" if of_all else "of the rows looked at"),
        Fact("share of the codebook", f"{used / len(counts):.1%}"),
        Fact("perplexity", "-" if found is None else f"{found:,.1f}", "of the rows looked at"),
    ]
    return {
        "name": one.name,
        "facts": facts,
        "chart": charts.code_use("Codes by how often they are used", counts),
    }


def speed_chart(report: Report) -> charts.Chart | None:
    unit = "images" if report.plan.command != "export" else "rows"
    return None if report.speed is None else charts.speeds("Throughput over time", unit, report.speed)


def _stages(report: Report) -> list[tuple[str, str, str]]:
    """Seconds of each stage, and how many rows went through it in one of them."""
    totals = report.totals
    named = [("shards, in all", totals.seconds), *((stage, totals.timings.get(stage, 0.0)) for stage in STAGES)]
    done = totals.rows_written
    return [(name, f"{seconds:,.1f} s", f"{done / seconds:,.1f}" if seconds > 0.05 else "-") for name, seconds in named]


def _files(report: Report) -> list[tuple[str, str | None, str]]:
    """What there is to open: the path, its link, and what it is."""
    found = []
    others = {
        CONTACT_SHEET: "the contact sheet",
        EVALUATION: "the measures in total",
        PLAN: "the plan of the job",
        CARD: "the dataset card",
    }
    for path, about in others.items():
        if storage.exists(storage.join(report.output, path)):
            found.append((path, report.links.inside(path), about))
    for path, rows, size in report.files:
        found.append((path, report.links.inside(path), f"{amount(rows, 'rows')}, {size_text(size)}"))
    return found
