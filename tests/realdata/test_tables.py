"""Text tables as people write them: images in cells, and paths as URIs."""

from __future__ import annotations

import base64
import json
import unicodedata
from pathlib import Path

import pytest

from tests.support.images import encoded, scene
from tests.support.make_inputs import folder
from tests.support.read_inputs import column, errors, read
from tests.support.run_command import encode

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
