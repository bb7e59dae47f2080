"""References inside data: where they lead, and where they may not."""

from __future__ import annotations

import pytest

from transforms.errors import RowRejected
from transforms.inputs.uris import relative_to, resolve, scheme_of, stem, store_of


@pytest.mark.parametrize(
    ("reference", "table", "root", "expected"),
    [
        ("a.jpg", "/d/t.csv", "/d", "/d/a.jpg"),
        (" x/../a.jpg ", "/d/t.csv", "/d", "/d/a.jpg"),
        ("../img/a.jpg", "/d/meta/t.csv", "/d", "/d/img/a.jpg"),
        ("/e/a.jpg", "/d/t.csv", "/d", "/e/a.jpg"),
        ("file:///e/a.jpg", "/d/t.csv", "/d", "/e/a.jpg"),
        ("a b#1.jpg", "gs://bucket/d/t.csv", "gs://bucket/d", "gs://bucket/d/a b#1.jpg"),
        ("../a.jpg", "gs://bucket/d/t.csv", "gs://bucket", "gs://bucket/a.jpg"),
        ("gs://other/a.jpg", "gs://bucket/t.csv", "gs://bucket", "gs://other/a.jpg"),
        ("gcs://other/a.jpg", "gs://bucket/t.csv", "gs://bucket", "gcs://other/a.jpg"),
        ("a.jpg", "https://host/d/t.csv", "https://host/d", "https://host/d/a.jpg"),
        ("FILE://localhost/e/a%20b%C3%A9.jpg", "/d/t.csv", "/d", "/e/a bé.jpg"),
        ("file:///e/a%FF.jpg", "/d/t.csv", "/d", "/e/a%FF.jpg"),
        ("a::gs://b.jpg", "/d/t.csv", "/d", "/d/a::gs:/b.jpg"),
        ("HTTPS://host/a::b.jpg", "https://host/t.csv", "https://host", "https://host/a::b.jpg"),
    ],
)
def test_references_are_resolved_against_the_table(reference: str, table: str, root: str, expected: str) -> None:
    assert resolve(reference, table, root, (scheme_of(table),)) == expected


@pytest.mark.parametrize(
    ("reference", "table", "root"),
    [
        ("../a.jpg", "/d/t.csv", "/d"),
        ("x/../../a.jpg", "/d/t.csv", "/d"),
        ("../da/a.jpg", "/d/t.csv", "/d"),
        ("../../other/a.jpg", "gs://bucket/d/t.csv", "gs://bucket"),
        ("/etc/passwd", "gs://bucket/t.csv", "gs://bucket"),
        ("file:///etc/passwd", "gs://bucket/t.csv", "gs://bucket"),
        ("http://169.254.169.254/x", "gs://bucket/t.csv", "gs://bucket"),
        ("HTTP://host/x", "/d/t.csv", "/d"),
        ("file://http://host/x", "/d/t.csv", "/d"),
        ("file://host/x", "/d/t.csv", "/d"),
        ("gs://bucket/x::http://host/x", "gs://bucket/t.csv", "gs://bucket"),
        ("gs://bucket/x::simplecache", "gs://bucket/t.csv", "gs://bucket"),
    ],
)
def test_other_schemes_and_paths_out_of_the_dataset_are_rejected(reference: str, table: str, root: str) -> None:
    with pytest.raises(RowRejected) as rejected:
        resolve(reference, table, root, (scheme_of(table),))
    assert rejected.value.code == "uri_not_allowed"
    assert reference in rejected.value.message or root in rejected.value.message


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        ("/d/a.jpg", "file"),
        ("GCS://bucket/d/a.jpg", "gs://bucket"),
        ("https://Host:80/a", "https://host:80"),
        ("http://host", "http://host"),
    ],
)
def test_a_store_is_what_fails_as_a_whole(uri: str, store: str) -> None:
    assert store_of(uri) == store


def test_stems_and_relative_names_make_keys() -> None:
    assert [stem(name) for name in ("d/a.jpg", "d.x/a", "a.csv.gz", "d/.b", "a.b.png")] == [
        "d/a", "d.x/a", "a", "d/.b", "a.b",
    ]  # fmt: skip
    assert relative_to("/d/x/a", "/d") == "x/a"
    assert relative_to("/other/a", "/d") == "a"
