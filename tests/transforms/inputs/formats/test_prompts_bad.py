"""Bad prompts and options: what makes a rejected row, what is wrong usage, and that neither takes memory or words."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, plan, read
from transforms.errors import UsageError
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest
from transforms.inputs.rows import MAX_PROMPT_BYTES
from transforms.inputs.values import MAX_TEXT_BYTES

MEASURE = """
import sys
from pathlib import Path
from tests.support.read_inputs import read
rows = read(sys.argv[1], kind="prompts")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(rows[0]["error_code"], rows[0]["error_message"], len(rows), int(status["VmHWM"].split()[0]) // 1024, sep="|")
"""
BAD_VALUES: list[tuple[str, Any, str]] = [
    ("seed", -1, "a whole number from 0 to 2^63 - 1"),
    ("seed", 1 << 63, "a whole number from 0 to 2^63 - 1"),
    ("seed", 0.5, "a whole number"),
    ("seed", "seven", "a whole number"),
    ("seed", "1_000", "a whole number"),
    ("seed", 2.0**60, "a whole number"),
    ("seed", True, "a whole number"),
    ("images", 0, "a whole number from 1 to 10000"),
    ("images", 10_001, "a whole number from 1 to 10000"),
    ("images", "1e9", "a whole number from 1 to 10000"),
    ("guidance_scale", math.nan, "a finite number"),
    ("guidance_scale", math.inf, "a finite number"),
    ("guidance_scale", "nan", "a finite number"),
    ("guidance_scale", "1e999", "a finite number"),
    ("guidance_scale", 10**400, "a finite number"),
    ("guidance_scale", {"a": 1}, "a finite number"),
    ("guidance_scale", 1e300, "a finite number from -1e6 to 1e6"),
    ("temperature", 1e-9, "a finite number above 0, from 1e-6 to 1e6"),
    ("temperature", 0, "a finite number above 0"),
    ("temperature", -0.5, "a finite number above 0"),
    ("temperature", math.inf, "a finite number above 0"),
    ("top_k", -1, "a whole number from 0 to 2^31 - 1"),
    ("top_k", 1 << 31, "a whole number from 0 to 2^31 - 1"),
    ("top_k", 2.5, "a whole number"),
    ("top_p", 0, "a number above 0, and at most 1"),
    ("top_p", 1e-40, "a number above 0, and at most 1"),
    ("top_p", 1.001, "a number above 0, and at most 1"),
    ("top_p", "½", "a number above 0, and at most 1"),
]


def prompts(*patterns: Any, **request: Any) -> list[dict[str, Any]]:
    return read(*patterns, kind="prompts", **request)


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(("name", "value", "wanted"), BAD_VALUES)
def test_an_option_that_cannot_be_used_rejects_its_row(tmp_path: Path, name: str, value: Any, wanted: str) -> None:
    good: dict[str, Any] = {"seed": "3", "images": 4, "guidance_scale": 1, "temperature": 1, "top_k": 0, "top_p": 1}
    records = [{"prompt": "a", **good, name: value, "mixed": "x"}, {"prompt": "b", **good, name: str(good[name])}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    rows = prompts(folder(tmp_path, {"p.jsonl": lines}) / "p.jsonl")
    assert errors(rows) == ["bad_value", None]
    assert rows[0]["error_message"].startswith(f"{name} is ")
    assert f", expected {wanted}" in rows[0]["error_message"]
    assert (rows[0]["caption"], rows[0][name]) == (None, None)
    assert rows[1][name] == float(good[name])
    if name != "images":
        assert rows[0]["images"] == 4


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("guidance_scale", pa.array([math.nan, 3.5])),
        ("top_k", pa.array([-1, 50], pa.int8())),
        ("seed", pa.array([1 << 63, 5], pa.uint64())),
        ("temperature", pa.array(["hot", "0.9"]).dictionary_encode()),
    ],
)
def test_an_option_in_parquet_that_cannot_be_used_rejects_its_row(tmp_path: Path, name: str, values: pa.Array) -> None:
    rows = prompts(write(tmp_path / "p.parquet", {"prompt": ["a", "b"], name: values, "images": [2, 2]}))
    assert errors(rows) == ["bad_value", None]
    assert rows[0]["error_message"].startswith(f"{name} is ")
    assert (rows[0]["caption"], rows[0][name], rows[0]["images"]) == (None, None, 2)
    assert rows[1][name] is not None


def test_a_long_text_in_the_place_of_a_number_is_not_repeated(tmp_path: Path) -> None:
    path = folder(tmp_path, {"p.csv": f"prompt,top_p\na,{'9' * 1_000_000}\n"}) / "p.csv"
    (row,) = prompts(path)
    assert row["error_code"] == "bad_value"
    assert len(row["error_message"]) < 200


def tables_of(path: Path, texts: list[str]) -> list[Path]:
    """The same prompts in each format."""
    lines = "".join(json.dumps({"prompt": text, "images": 2}) + "\n" for text in texts)
    cells = "prompt,images\n" + "".join(f"{text},2\n" for text in texts)
    folder(path, {"t/p.txt": "\n".join(texts) + "\n", "c/p.csv": cells, "j/p.jsonl": lines})
    (path / "p").mkdir()
    return [
        *(path / name for name in ("t/p.txt", "c/p.csv", "j/p.jsonl")),
        write(path / "p" / "p.parquet", {"prompt": texts, "images": [2] * len(texts)}),
    ]


def test_a_prompt_of_a_megabyte_is_rejected_and_not_repeated(tmp_path: Path) -> None:
    fits = "é" * (MAX_PROMPT_BYTES // 2)
    for path in tables_of(tmp_path, ["a", "x" * 1_000_000, fits, fits + "x", "b"]):
        rows = prompts(path)
        assert errors(rows) == [None, "prompt_too_long", None, "prompt_too_long", None]
        assert column(rows, "caption") == ["a", None, fits, None, "b"]
        assert rows[1]["error_message"] == f"the prompt has 1000000 bytes, more than {MAX_PROMPT_BYTES}"
        assert rows[3]["error_message"].startswith(f"the prompt has {MAX_PROMPT_BYTES + 1} bytes")
        assert column(rows, "images") == [None if path.suffix == ".txt" else 2] * 5


@pytest.mark.parametrize(("name", "head"), [("p.csv", "prompt,note\n"), ("p.jsonl", '{"prompt": "z", "note": "z"}\n')])
def test_a_line_beyond_all_bounds_takes_no_other_row_along(tmp_path: Path, name: str, head: str) -> None:
    long = "x" * (17 << 20)
    lines = {"p.csv": ["z,z", f'"{long}",n', "b,n"], "p.jsonl": [f'{{"prompt": "{long}"}}', '{"prompt": "b"}']}[name]
    rows = prompts(folder(tmp_path, {name: head + "\n".join(lines)}) / name)
    assert errors(rows) == [None, "broken_record", None]
    assert column(rows, "caption") == ["z", None, "b"]
    assert len(rows[1]["error_message"]) < 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_a_huge_line_is_one_row_and_takes_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "p.txt", "wb") as file:
        file.truncate(256 << 20)  # a hole: it takes no disk
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "p.txt")], capture_output=True, text=True, check=True
    )
    code, message, rows, peak = done.stdout.split("|")
    assert (code, rows) == ("prompt_too_long", "1")
    assert message == f"the line has at least {MAX_TEXT_BYTES} bytes, a prompt at most {MAX_PROMPT_BYTES}"
    assert int(peak) < 250, f"{peak} MiB for a line of 256 MiB"


def test_lines_that_are_no_utf8_are_rejected_in_their_place(tmp_path: Path) -> None:
    files = {
        "p.txt": b"a\n\xff\xfeb\nc\n",
        "p.csv": b"prompt\na\n\xff\nc\n",
        "p.jsonl": b'{"prompt": "a"}\n{"prompt": "\xff"}\n{}',
    }
    for name, data in files.items():
        rows = prompts(folder(tmp_path, {name: data}) / name)
        assert errors(rows) == [None, "broken_record", None]
        assert column(rows, "key") == [f"p-{row:09d}" for row in range(3)]


def test_text_in_parquet_that_is_no_utf8_is_rejected_in_its_place(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    rows = prompts(write(tmp_path / "p.parquet", {"prompt": texts}), key_from="prompt")
    assert errors(rows) == [None, "broken_record", None]
    assert column(rows, "caption") == ["a", None, "c"]


def test_control_characters_are_kept(tmp_path: Path) -> None:
    text = "bell\x07 null\x00 escape\x1b[31m \u202e"
    path = write(tmp_path / "p.parquet", {"prompt": [text]})
    assert column(prompts(path), "caption") == [text]
    assert column(prompts(folder(tmp_path, {"p.txt": text + "\n"}) / "p.txt"), "caption") == [text]


def test_rows_without_a_prompt_are_left_for_the_tokenizer_to_reject(tmp_path: Path) -> None:
    path = folder(tmp_path, {"p.jsonl": '{"prompt": null}\n{"prompt": ""}\n{"seed": 1}\n{"prompt": "a"}\n'}) / "p.jsonl"
    rows = prompts(path)
    assert column(rows, "caption") == [None, None, None, "a"]
    assert errors(rows) == [None] * 4


def test_a_prompt_that_is_no_text_is_rejected(tmp_path: Path) -> None:
    (bad, good) = prompts(folder(tmp_path, {"p.jsonl": '{"prompt": 7}\n{"prompt": "a"}\n'}) / "p.jsonl")
    assert (bad["error_code"], bad["error_message"]) == ("schema_mismatch", "the prompt is 7, not a string")
    assert good["error_code"] is None


def test_a_later_file_of_other_types_rejects_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["a"], "seed": [1]})
    write(tmp_path / "b.parquet", {"prompt": ["b"], "seed": [[1]]})
    write(tmp_path / "c.parquet", {"prompt": [["c"]], "seed": [1]})
    write(tmp_path / "d.parquet", {"prompt": ["d"]})
    write(tmp_path / "e.parquet", {"prompt": ["e"], "seed": ["6"]})
    rows = prompts(tmp_path)
    assert errors(rows) == [None, "schema_mismatch", "schema_mismatch", "schema_mismatch", None]
    assert "which holds no numbers" in rows[1]["error_message"]
    assert column(rows, "seed") == [1, None, None, None, 6]


def test_a_gzipped_txt_cut_short_keeps_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"prompt {row * 7919}\n" for row in range(20_000)).encode())[:-5000]
    rows = prompts(folder(tmp_path, {"p.txt.gz": packed}) / "p.txt.gz")
    assert errors(rows)[-1] == "broken_archive"
    assert 1000 < len(rows) < 20_000


def test_a_parquet_that_is_none_is_a_rejected_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["a"]})
    folder(tmp_path, {"b.parquet": b"not parquet"})
    assert errors(prompts(tmp_path)) == [None, "broken_archive"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", "a\nb\n".encode("utf-16"), r"p\.txt is UTF-16; prompts are read as UTF-8"),
        (
            "p.csv",
            b"a red apple\na dog\n",
            r"no column looks like the prompt \(a string\)",
        ),
        (
            "p.csv",
            b"prompt,Prompt\na,b\n",
            r"prompt and Prompt could each be the prompt; name one",
        ),
        ("p.csv", b"", r"p\.csv is empty$"),
        ("p.jsonl", b"\n", r"p\.jsonl is empty$"),
        ("p.csv", b"prompt,seed,Seed\na,1,2\n", r"seed and Seed mean the same"),
        ("p.jsonl", b'{"prompt": 5}\n', r"no column looks like the prompt.*prompt \(int64\)"),
        ("p.jsonl", b'{"prompt": ["a", "b"]}\n', r"column prompt holds lists.*write a row for each"),
        (
            "p.jsonl",
            b'{"prompt": "a", "seed": true}\n',
            r"column seed is bool, which holds no numbers.*rename it \(seed=N",
        ),
        (
            "p.png",
            b"x",
            r"no format can be inferred from the file extensions \(p\.png\).*csv, jsonl, parquet, tsv, txt",
        ),
    ],
)
def test_files_that_hold_no_prompts_are_wrong_usage(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(folder(tmp_path, {name: data}) / name, kind="prompts")


def test_flags_that_do_not_fit_are_wrong_usage(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"prompt": ["a"], "n": [1], "texts": [["a"]]})
    for request, message in (
        ({"caption_column": "nope"}, r"has no column nope"),
        ({"caption_column": "n"}, r"column n of .* is int64, not a string"),
        ({"caption_column": "texts"}, r"column texts holds lists"),
        ({"input_format": "webdataset"}, r"expected one of csv, jsonl, parquet, tsv, txt, not webdataset"),
        ({"prompts": ("a",)}, r"prompt and input contradict"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(path, kind="prompts", **request)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a",) * 10_001, r"10001 prompts are given one by one, more than 10000: write them to a \.txt file"),
        (("a", "x" * (MAX_PROMPT_BYTES + 1)), r"prompt number 1 has 65537 bytes, more than 65536$"),
        (("a", "\udcff"), r"prompt number 1 is not UTF-8"),
    ],
)
def test_prompts_that_no_plan_can_hold_are_wrong_usage(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_sources(InputRequest((), prompts=texts, kind="prompts"), 100)
