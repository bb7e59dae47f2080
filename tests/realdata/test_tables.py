"""Text tables as people write them: images in cells, and paths as URIs."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.images import encoded, scene
from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, read
from tests.support.run_command import encode
from transforms.errors import UsageError

IMAGES = [encoded(scene(40, 24 + number), "JPEG") for number in range(3)]
PNG = encoded(scene(20, 20), "PNG")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("cell", "data"),
    [
        (b64(IMAGES[0]), IMAGES[0]),
        (b64(PNG), PNG),
        (b64(IMAGES[1]).rstrip("="), IMAGES[1]),
        (base64.urlsafe_b64encode(IMAGES[2]).decode(), IMAGES[2]),
        (f"data:image/jpeg;base64,{b64(IMAGES[0])}", IMAGES[0]),
        (f" DATA:;base64,{b64(PNG)}", PNG),
        (f"data:image/png;base64,{b64(PNG).replace('+', '%2B')}", PNG),
        ("data:image/png," + "".join(f"%{byte:02x}" for byte in PNG), PNG),
    ],
)
def test_base64_and_data_uris_are_images(tmp_path: Path, cell: str, data: bytes) -> None:
    folder(
        tmp_path, {"t.jsonl": json.dumps({"image": cell}), "t.tsv": f"image\n{cell}\n", "t.csv": f'image\n"{cell}"\n'}
    )
    for name in ("t.jsonl", "t.tsv", "t.csv"):
        rows = read(tmp_path / name)
        assert (errors(rows), column(rows, "image")) == ([None], [data])


def test_base64_in_lines_of_76_letters_is_an_image(tmp_path: Path) -> None:
    table = json.dumps({"image": base64.encodebytes(PNG).decode()})
    assert column(read(folder(tmp_path, {"t.jsonl": table}) / "t.jsonl"), "image") == [PNG]


def test_a_column_that_is_called_base64_is_found(tmp_path: Path) -> None:
    table = json.dumps({"image_base64": b64(PNG), "text": "a"})
    rows = read(folder(tmp_path, {"t.jsonl": table}) / "t.jsonl")
    assert [(row["image"], row["caption"]) for row in rows] == [(PNG, "a")]


@pytest.mark.parametrize("path", ["/9j/4AAQ/a", "iVBORw0KGgo", "BMW/" + "a" * 60, "d/9j/" + "a" * 60 + ".jpg"])
def test_a_path_that_looks_like_base64_is_a_path(tmp_path: Path, path: str) -> None:
    rows = read(folder(tmp_path, {"t.jsonl": json.dumps({"image": path})}) / "t.jsonl")
    assert (errors(rows), rows[0]["image"], rows[0]["image_uri"][-4:]) == ([None], None, path[-4:])


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        (b64(bytes(3_000_000)), "not_an_image"),
        (b64(IMAGES[0]) + "!" * 3_000_000, "not_an_image"),
        ("data:image/png;base64,!" + "x" * 3_000_000, "not_an_image"),
        ("data:image/png;base64", "not_an_image"),
        ("https://host/" + "x" * 3_000_000, "not_an_image"),
        ("é" * 8000, "image_not_found"),
        ("https://host/" + "x" * 8000, "uri_not_allowed"),
        ("../" * 2000, "uri_not_allowed"),
        ({"bytes": b64(bytes(1_000_000))}, "schema_mismatch"),
    ],
    ids=range(9),
)
def test_a_message_is_short_whatever_the_cell_holds(tmp_path: Path, tiny_model: Path, cell: object, code: str) -> None:
    table = json.dumps({"image": cell, "caption": "c"}) + "\n" + json.dumps({"image": b64(PNG), "caption": "d"}) + "\n"
    folder(tmp_path, {"t.jsonl": table})
    done = encode(tmp_path / "t.jsonl", tmp_path / "out", tiny_model, "--image_column", "image")
    assert done.code == 0, done.err
    done.check_nothing_lost()
    (rejected,) = done.rejected()
    assert rejected["error"] == code
    assert all(len(text) <= 600 for text in rejected.values()), {name: len(text) for name, text in rejected.items()}
    assert len(done.err) + len(done.out) < 5000


def test_uris_of_files_are_percent_encoded_and_paths_are_not(tmp_path: Path) -> None:
    names = ["0 é.jpg", "a%20b.jpg", "a b.jpg", "c#d?.jpg", "e+f.jpg"]
    folder(tmp_path, {f"tr im/{name}": IMAGES[0] for name in names})
    paths = [tmp_path / "tr im" / name for name in names]
    cells = [*(path.as_uri() for path in paths), *map(str, paths), *(f"tr im/{name}" for name in names)]
    cells += [paths[0].as_uri().replace("file:///", "file://localhost/"), f"file://{paths[1]}"]
    table = "image\n" + "".join(f"{cell}\n" for cell in cells)
    rows = read(folder(tmp_path, {"t.csv": table}) / "t.csv")
    assert column(rows, "image_uri")[:15] == [str(path) for path in paths] * 3
    assert rows[15]["image_uri"] == str(paths[0])


def test_a_uri_of_a_file_that_is_not_encoded_finds_the_file_of_that_name(tmp_path: Path) -> None:
    folder(tmp_path, {"100%25.jpg": IMAGES[0], "t.csv": f"image\nfile://{tmp_path}/100%25.jpg\n"})
    assert column(read(tmp_path / "t.csv"), "image_uri") == [f"{tmp_path}/100%25.jpg"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_in_another_unicode_normalisation_is_found(tmp_path: Path, tiny_model: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    on_disk, written = (unicodedata.normalize(one, "café/Ångström.jpg") for one in (form, other))
    folder(tmp_path, {on_disk: IMAGES[0], "t.jsonl": json.dumps({"image": written}) + "\n"})
    done = encode(tmp_path / "t.jsonl", tmp_path / "out", tiny_model)
    assert (done.code, len(done.rows())) == (0, 1), done.err


def test_the_names_of_folders_give_columns(tmp_path: Path) -> None:
    folder(tmp_path, {f"ds/lang={name}/a.csv": "image,caption\na.jpg,x\n" for name in ("de", "en")})
    rows = read(tmp_path / "ds")
    assert [(row["key"], row["pass:lang"]) for row in rows] == [
        ("lang=de/a-000000000", "de"), ("lang=en/a-000000000", "en"),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_whole_numbers_in_the_names_of_folders_are_numbers(tmp_path: Path, ending: str) -> None:
    row = json.dumps({"image": "a.jpg"}) if ending == "jsonl" else "image\na.jpg"
    names = ("n=-7", "n=2147483647", "n=__HIVE_DEFAULT_PARTITION__")
    folder(tmp_path, {f"ds/{name}/a.{ending}": f"{row}\n" for name in names})
    rows = read(tmp_path / "ds")
    assert [(row["error_message"], row["pass:n"]) for row in rows] == [(None, -7), (None, 2147483647), (None, None)]


CAPTIONS = [
    "a cat", "a dog", '"the kiss', "by the sea", "old town", "tall tower", "red car", "blue car", 'sunset "',
    '"wow" he said', '5" pipe', "last one",
]  # fmt: skip


def tsv(*rows: str, header: str = "image\tcaption") -> str:
    return "".join(f"{row}\n" for row in (header, *rows))


def test_a_tsv_as_people_write_it_has_no_quoting(tmp_path: Path, tiny_model: Path) -> None:
    folder(tmp_path, {f"im/{number}.jpg": IMAGES[0] for number in range(12)})
    folder(tmp_path, {"a.tsv": tsv(*(f"im/{number}.jpg\t{text}" for number, text in enumerate(CAPTIONS)))})
    done = encode(tmp_path / "a.tsv", tmp_path / "out", tiny_model, "--rows_per_shard", 5)
    assert (done.code, [row["caption"] for row in done.rows()]) == (0, CAPTIONS), done.err
    again = encode(tmp_path / "a.tsv", tmp_path / "out", tiny_model, "--rows_per_shard", 5)
    assert again.code == 0, again.err
    told = encode(tmp_path / "a.tsv", tmp_path / "new", tiny_model, "--dry_run")
    assert "quoting     none: quotation marks are text" in told.out
    other = encode(tmp_path / "a.tsv", tmp_path / "out", tiny_model, "--rows_per_shard", 5, "--quoting", "csv")
    assert other.code == 2
    assert "input.quoting: the folder has 'auto', this command asks for 'csv'" in other.err


def test_prompts_in_a_tsv_are_one_a_line(tmp_path: Path) -> None:
    table = 'id\tprompt\n1\t"a red apple\n2\ta rocket\n3\ta ghost\n4\ta snail"\n5\ta tree\n'
    rows = read(folder(tmp_path, {"p.tsv": table}) / "p.tsv", kind="prompts")
    assert column(rows, "caption") == ['"a red apple', "a rocket", "a ghost", 'a snail"', "a tree"]
    assert column(rows, "key") == ["1", "2", "3", "4", "5"]


QUOTED = [
    ["a.jpg\tplain", 'b.jpg\t"said ""hi"""'],
    ["a.jpg\tplain", 'b.jpg\t"two\nlines"', 'c.jpg\t"a\ttab"'],
    ['"a.jpg"\t"one"', '"b.jpg"\t"two"'],
    ['a.jpg\t"one"', 'b.jpg\t""', 'c.jpg\t"three"'],
    ['a.jpg\t"one, two"', "b.jpg\tthree"],
    ["a.jpg", 'b.jpg\t"said ""hi"""'],
]


@pytest.mark.parametrize("rows", QUOTED, ids=range(len(QUOTED)))
def test_a_tsv_that_quotes_consistently_is_read_as_python_reads_it(tmp_path: Path, rows: list[str]) -> None:
    folder(tmp_path, {"t.tsv": tsv(*rows), "t.csv": tsv(*rows)})
    with (tmp_path / "t.csv").open(newline="") as file:
        expected = [
            row["caption"] or None for row in csv.DictReader(file, delimiter="\t") if row["caption"] is not None
        ]
    found = read(tmp_path / "t.tsv")
    assert [row["caption"] for row in found if row["error_code"] is None] == expected
    assert len(found) == len(rows)


TEXT = [
    ['a.jpg\t"the kiss"', "b.jpg\ta dog"],
    ["a.jpg\tone, two", 'b.jpg\t"three, four"'],
    ['a.jpg\t5" pipe', 'b.jpg\t"x"'],
    ['a.jpg\t"open', "b.jpg\ta dog"],
    ['a.jpg\t"open', 'b.jpg\tclosed"'],
    ["a.jpg\ta" + '"' * 5],
    [*['a.jpg\t5" pipe'] * 60, 'b.jpg\t"a ""quote"""'],
]


@pytest.mark.parametrize("rows", TEXT, ids=range(len(TEXT)))
def test_quotation_marks_that_no_program_wrote_are_text(tmp_path: Path, rows: list[str]) -> None:
    folder(tmp_path, {"t.tsv": tsv(*rows)})
    assert column(read(tmp_path / "t.tsv"), "caption") == [row.partition("\t")[2] for row in rows]


UNCLEAR = {
    "both.tsv": tsv('a.jpg\t5" pipe', 'b.jpg\t"said ""hi"""'),
    "swallows.tsv": tsv('a.jpg\t"the kiss', 'b.jpg\tsunset"', 'c.jpg\t"said ""hi"""'),
    "lines.tsv": '"prompt"\n"a red apple\na snail"\n',
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_marks_that_can_be_read_both_ways_are_an_error_that_quoting_settles(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, {name: UNCLEAR[name]}) / name
    request = {"image_column": "prompt"} if name == "lines.tsv" else {}
    with pytest.raises(UsageError, match=f"{name}: .*; say what quotation marks are: csv") as raised:
        read(path, **request)
    assert raised.value.option == "quoting"
    assert len(read(path, quoting="csv", **request)) == UNCLEAR[name].count("\n") - (1 if name == "both.tsv" else 2)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_quoting_settles_it_for_csv_and_tsv(tmp_path: Path, name: str) -> None:
    between = "," if name == "t.csv" else "\t"
    path = folder(tmp_path, {name: f'image{between}caption\na.jpg{between}"x"\nb.jpg{between}y"\n'}) / name
    assert column(read(path, quoting="none"), "caption") == ['"x"', 'y"']
    assert column(read(path, quoting="csv"), "caption") == ["x", 'y"']


def test_quoting_is_refused_for_what_has_none(tmp_path: Path) -> None:
    path = folder(tmp_path, {"t.jsonl": '{"image": "a.jpg"}\n'}) / "t.jsonl"
    with pytest.raises(UsageError, match="the input is jsonl; it is for csv and tsv"):
        read(path, quoting="none")


def test_tables_of_one_job_agree_on_quoting(tmp_path: Path) -> None:
    folder(tmp_path, {"a.tsv": tsv('a.jpg\t5" pipe'), "b.tsv": tsv('a.jpg\t"say ""hi"""'), "c.tsv": tsv("a.jpg\tx")})
    with pytest.raises(UsageError, match=r"text in others: .*/a\.tsv says none, .*/b\.tsv csv; run a job for each"):
        read(tmp_path)
    (tmp_path / "b.tsv").unlink()
    assert column(read(tmp_path), "caption") == ['5" pipe', "x"]


@pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
def test_lines_without_quoting_that_cannot_be_parsed_are_rejected_in_their_place(
    tmp_path: Path, rows_per_shard: int
) -> None:
    lines = [b"path\tcaption", b'0.jpg\t"ok', b"1.jpg", b"2.jpg\ta\tb", b"4.jpg\t\xff", b"", b"\tnone", b"6.jpg\tok"]
    path = folder(tmp_path, {"t.tsv": b"\r\n".join(lines)}) / "t.tsv"
    rows = read(path, rows_per_shard=rows_per_shard)
    assert errors(rows) == [None, *["broken_record"] * 3, "missing_image", None]
    assert (rows[0]["caption"], rows[1]["error_message"]) == ('"ok', "the line at byte 25 has 1 cells, the header 2")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.csv.gz"])
def test_utf16_is_refused_by_name(tmp_path: Path, name: str, encoding: str) -> None:
    data = "image,caption\na.jpg,x\n".encode(encoding)
    folder(tmp_path, {name: gzip.compress(data) if name.endswith("gz") else data})
    with pytest.raises(UsageError, match=rf"{name} is UTF-16; tables are read as UTF-8: convert it first"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_lines_of_old_macs_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder(tmp_path, {name: "image,caption\ra.jpg,x\rb.jpg,y\r"})
    with pytest.raises(UsageError, match=r"lines that end in a carriage return alone, .*tr '\\r' '\\n'"):
        read(tmp_path / name)


def test_a_job_that_was_begun_before_there_was_a_choice_keeps_its_quoting(tmp_path: Path, tiny_model: Path) -> None:
    folder(tmp_path, {f"{number}.jpg": IMAGES[0] for number in range(4)})
    folder(tmp_path, {"a.tsv": tsv('0.jpg\t"one"', "1.jpg\ttwo", '2.jpg\t"three"', '3.jpg\t"four"')})
    source, output, flags = tmp_path / "a.tsv", tmp_path / "out", ("--rows_per_shard", 2)
    assert encode(source, output, tiny_model, *flags, "--quoting", "csv").code == 0
    shards = output / "_vqbeam" / "shards.parquet"
    table = pq.read_table(shards)
    header = json.loads(table.schema.metadata[b"vqbeam.plan"])
    del header["fingerprint"]["input"]["quoting"], header["schema"]["quoting"], header["schema"]["folders"]
    pq.write_table(table.replace_schema_metadata({"vqbeam.plan": json.dumps(header)}), shards)
    for path in (output / "data/00001.parquet", output / "_vqbeam/stats/00001.json", output / "_SUCCESS"):
        path.unlink()
    resumed = encode(source, output, tiny_model, *flags)
    assert resumed.code == 0, resumed.err
    assert [row["caption"] for row in resumed.rows()] == ["one", "two", "three", "four"]
    folder(tmp_path, {"b.tsv": tsv('0.jpg\t5" pipe')})
    assert encode(source, output, tiny_model, *flags, "--quoting", "none").code == 2
