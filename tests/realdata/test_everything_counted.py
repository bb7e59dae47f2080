"""Random small folders, tars and tables as people have them: every file and row has one end, images are Pillow's.

Files in = rows + texts that rows have + passed over; rows = written + rejected + filtered. Most examples are only
planned, read and prepared, which decides it; some run as whole commands.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.images import encoded
from tests.support.run_command import Outcome, encode, run
from transforms.errors import RowRejected
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.inputs.fetch import fetch_image, rejecting
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import InputPlan, plan_sources
from transforms.inputs.request import InputRequest
from transforms.work.prepare import Pool, Pools, PrepareImages

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.random_inputs import (
    KINDS,
    NUMBERS,
    SIDE,
    SMALLEST,
    Made,
    folders,
    image,
    pixels,
    tables,
    tars,
    write_folder,
    write_tables,
    write_tar,
)

TEXT = re.compile(r"(?i)\.(txt|caption)$")
HEALTH = list(HealthCheck)
QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=HEALTH)
COMMANDS = settings(QUICK, max_examples=3)
MANY = settings(QUICK, max_examples=100)
MANY_COMMANDS = settings(QUICK, max_examples=12)
Write = Callable[[Path], Made]


class Read:
    """A planned input, read and prepared: the good rows, and why the others ended."""

    def __init__(self, path: Path, **asked: Any) -> None:
        self.plan: InputPlan = plan_sources(InputRequest((str(path),), **asked), 100)
        self.rows: list[tuple[str, str | None, np.ndarray]] = []
        self.ended: Counter[str] = Counter()
        self.read = 0
        slices = [piece.slice for piece in self.plan.pieces]
        fetch = rejecting(partial(fetch_image, max_bytes=1 << 20), {"file"})
        decode = partial(decode_image, options=ImageOptions(size=SIDE, resize="none", min_image_size=SMALLEST))
        with ThreadPoolExecutor(1) as decoding, ThreadPoolExecutor(1) as fetching:
            pools = Pools(Pool(decoding), Pool(fetching))
            prepare = PrepareImages(decode, self.plan.schema, fetch, pools, require_caption=False)
            for batch in read_slices(slices, self.plan.schema):
                prepared = prepare(batch, self.read)()
                self.read += prepared.rows_read
                names = (prepared.columns.column(name).to_pylist() for name in ("key", "caption"))
                self.rows += zip(*names, prepared.arrays, strict=True)
                for refusal in prepared.refusals:
                    cause = refusal.cause
                    self.ended[cause.code if isinstance(cause, RowRejected) else cause.reason] += 1
                    assert len(str(cause)) < 1000
        assert self.read == len(self.rows) + self.ended.total()

    def check(self, made: Made) -> None:
        """The good rows, in any order, have these images and captions."""
        assert made.rows in (None, self.read)
        assert self.ended["min_image_size"] == made.filtered
        assert Counter((array.tobytes(), caption) for _, caption, array in self.rows) == made.images


def check_files(made: Made, read: set[str], left: set[str]) -> None:
    """Every file of a folder is an image that is read, a text of one, a table of the folder, or passed over."""
    assert not read & left
    texts = set(made.files) - read - left
    assert texts <= set(made.texts)
    described = {TEXT.sub("", name) for name in texts if not name.startswith("metadata.")}
    captioned = read - {*made.named}
    assert described <= {*captioned, *(os.path.splitext(name)[0] for name in captioned)}


def check_read_folder(drawn: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        made = write_folder(Path(folder), drawn)
        done = Read(made.path)
        done.check(made)
        passed = done.plan.passed
        left = {os.path.relpath(uri, folder) for uris in passed.names.values() for uri in uris}
        assert passed.counts.total() == len(left)
        check_files(made, {os.path.relpath(found.uri, folder) for found in done.plan.inputs.files}, left)


def check_read(write: Write) -> None:
    with TemporaryDirectory() as folder:
        made = write(Path(folder))
        Read(made.path).check(made)


@QUICK
@given(folders())
def test_every_file_of_a_folder_is_a_row_a_text_of_one_or_passed_over(drawn: dict[str, Any]) -> None:
    check_read_folder(drawn)


@QUICK
@given(tars())
def test_every_sample_of_a_tar_is_a_row(drawn: dict[str, Any]) -> None:
    check_read(partial(write_tar, drawn=drawn))


@QUICK
@given(tables())
def test_every_row_of_a_table_has_an_end(drawn: dict[str, Any]) -> None:
    check_read(partial(write_tables, drawn=drawn))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@MANY
@given(folders(), tars(), tables())
def test_many_inputs(folder: dict[str, Any], tar: dict[str, Any], table: dict[str, Any]) -> None:
    check_read_folder(folder)
    check_read(partial(write_tar, drawn=tar))
    check_read(partial(write_tables, drawn=table))


writes = st.one_of(
    st.builds(lambda drawn: partial(write_folder, drawn=drawn), folders()),
    st.builds(lambda drawn: partial(write_tar, drawn=drawn), tars()),
    st.builds(lambda drawn: partial(write_tables, drawn=drawn), tables()),
)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[bytes, list[int]]:
    """The codes of all good images, by their pixels as Pillow reads them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("codes")
    arrays = [pixels(image(kind, number)) for kind in KINDS for number in range(NUMBERS)]
    known = {array.tobytes(): array for array in arrays if array is not None}
    pngs = [encoded(Image.fromarray(array), "PNG") for array in known.values()]
    pq.write_table(pa.table({"image": pngs}), folder / "all.parquet")
    done = encode(folder / "all.parquet", folder / "out", tiny_model)
    return {data: row["encoding"] for data, row in zip(known, done.rows(), strict=True)}


def check_command(write: Write, model: Path, codes: dict[bytes, list[int]]) -> None:
    """`--dry_run`, the run, its marks, tables and summary, `status` and `verify` say the same, and that it is right."""
    with TemporaryDirectory() as home:
        (Path(home) / "in").mkdir()
        made = write(Path(home) / "in")
        words = (made.path, Path(home) / "out", model, "--min_image_size", SMALLEST)
        planned = encode(*words, "--dry_run")
        assert planned.code == 0, planned.err
        done = encode(*words)
        assert done.code == 0, done.err
        done.check_nothing_lost()
        read, written, rejected, filtered = (
            done.total(f"rows_{end}") for end in ("read", "written", "rejected", "filtered")
        )
        expected = Counter(
            (tuple(codes[array.tobytes()]), caption, *more)
            for data, caption, more in made.good
            if (array := pixels(data)) is not None
        )
        rows = [(tuple(row["encoding"]), row["caption"], *(row[name] for name in made.columns)) for row in done.rows()]
        assert Counter(rows) == expected
        assert (written, filtered) == (len(made.good), made.filtered)
        assert made.rows in (None, read)
        said = stated(planned, "rows")
        assert said in (f"{read}", "not known before they are read")
        sums = f"{read} read = {written} written + {rejected} rejected + {filtered} filtered"
        checked = run("verify", done.output), run("status", done.output)
        assert [outcome.code for outcome in checked] == [0, 0]
        assert stated(done, "  rows") == stated(checked[1], "  rows") == sums
        passed = passed_over(done)
        lines = [line_with(outcome, "passed over: ") for outcome in (planned, done, checked[1])]
        assert len({re.sub(r" \(names: .*", "", line) for line in lines}) == 1
        assert sum(map(int, re.findall(r"([0-9]+) [^,]+", lines[0]))) == sum(map(len, passed.values()))
        if made.files:
            left = {os.path.relpath(uri, made.path) for uris in passed.values() for uri in uris}
            texts = {*made.texts} - left
            tables = {name for name in texts if name.startswith("metadata.")}
            images = {*made.files} - left - texts
            assert int(stated(planned, "files")) == len(images - {*made.named}) + len(tables)
            assert read == len(images - {*made.named}) + len(made.named)
            check_files(made, images, left)


def stated(outcome: Outcome, label: str) -> str:
    """What follows a label at the beginning of a line."""
    return next(line for line in outcome.out.splitlines() if line.startswith(f"{label} "))[len(label) :].strip()


def line_with(outcome: Outcome, words: str) -> str:
    return next((line.partition(words)[2] for line in outcome.out.splitlines() if words in line), "")


def passed_over(outcome: Outcome) -> dict[str, list[str]]:
    """The names in the plan."""
    return json.loads(outcome.read("_vqbeam/plan.json"))["passed_over"].get("names", {})


@COMMANDS
@given(write=writes)
def test_a_command_and_its_reports_agree(write: Write, tiny_model: Path, codes: dict[bytes, list[int]]) -> None:
    check_command(write, tiny_model, codes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@MANY_COMMANDS
@given(write=writes)
def test_many_commands(write: Write, tiny_model: Path, codes: dict[bytes, list[int]]) -> None:
    check_command(write, tiny_model, codes)
