"""The page as text: one file that names nothing to load, in which no text of the data is anything but text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from models.errors import CheckpointError
from models.image_tokenizer import ImageTokenizer
from tests.support.report_folders import write_folder
from transforms.ledger.plan import load_plan
from transforms.report.cards import Card, Picture
from transforms.report.gather import Asked, Report, Section, gather
from transforms.report.links import Links
from transforms.report.page import render, visible

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "<!-- --!> <style>body{display:none}</style>",
    "{{ 7 * 7 }} {% include 'page.css' %}",
    "evil \u202e gnp.exe \u2066 \x00 \x1b[2J \udc80",
    "javascript:alert(4)",
)


class Elements(HTMLParser):
    """Counts elements, and keeps all attributes and the text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def parsed(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    return found


def no_model(made: Mapping[str, Any]) -> ImageTokenizer:
    raise CheckpointError("no model")


@pytest.fixture
def report(tmp_path: Path) -> Report:
    bad = [
        {
            "key": t.replace("\udc80", ""),
            "uri": "/in/" + t.replace("\udc80", ""),
            "stage": "decode",
            "error": "broken_image",
            "message": t.replace("\udc80", ""),
        }
        for t in HOSTILE
    ]
    folder = write_folder(tmp_path / "out", 1, 10, bad={0: bad[:5]})
    plan = load_plan(str(folder))
    assert plan is not None
    return gather(str(folder), plan, Asked(str(folder), 4, 0, no_model))


def cards(*texts: str) -> Section:
    pictures = (Picture(None, "original", texts[0]), Picture("data:image/png;base64,AA==", texts[0], texts[0]))
    made = [Card(text, text, pictures, (text,), link="./data/00000.parquet", linked=text) for text in texts]
    return Section("Hostile", texts[0], made)


def test_no_text_of_the_data_becomes_an_element_or_an_attribute(report: Report) -> None:
    tame = parsed(render(replace(report, sections=[cards(*(["tame"] * len(HOSTILE)))]), "vqbeam report", "1"))
    hostile = parsed(render(replace(report, sections=[cards(*HOSTILE)], problems=[*HOSTILE]), "vqbeam report", "1"))
    extra = len(HOSTILE) - len(report.problems)
    assert sorted(hostile.tags) == sorted([*tame.tags, *(["p", "bdi"] * extra)])
    assert {name for name, _ in hostile.attributes} == {name for name, _ in tame.attributes}
    text = "".join(hostile.text)
    for written in HOSTILE:
        assert visible(written) in text


def test_the_page_names_nothing_to_load(report: Report) -> None:
    page = render(replace(report, sections=[cards(*HOSTILE)]), "vqbeam report", "1")
    found = parsed(page)
    assert not {"link", "iframe", "object", "embed", "base"} & {*found.tags}
    loading = [value for name, value in found.attributes if name in ("src", "srcset", "poster", "action")]
    assert all(value.startswith("data:image/") for value in loading)
    assert not re.search(r"url\(|@import|http-equiv=.refresh", page)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    links = [value for name, value in found.attributes if name == "href"]
    assert links
    assert all(re.match(r"(\./|#|file:///)", value) for value in links)


def test_hidden_characters_are_written_out() -> None:
    assert visible("a\u202eb\u2066c\x00d\x1be\udc80f") == r"a\u202eb\u2066c\u0000d\u001be\udc80f"
    assert visible("family 👨‍👩‍👧, עברית, line\nbreak\ttab") == "family 👨‍👩‍👧, עברית, line\nbreak\ttab"


def test_counts_that_do_not_balance_are_told(report: Report) -> None:
    assert "The counts balance." in render(report, "", "")
    report.totals.rows_read += 1
    assert "DO NOT BALANCE" in render(report, "", "")


@pytest.mark.parametrize(
    ("page", "link"), [("/a/out", "./data/x%20%23%3F.png"), ("/a/b/c", "./../../out/data/x%20%23%3F.png")]
)
def test_links_are_relative_to_the_page(page: str, link: str) -> None:
    assert Links("/a/out", page).inside("data/x #?.png") == link


def test_a_page_elsewhere_has_no_links_into_a_store() -> None:
    assert Links("gs://bucket/out", "/home/me").inside("data/x.png") is None
    assert Links("gs://bucket/out", "gs://bucket/out").inside("data/x.png") == "./data/x.png"


def test_only_local_files_are_linked_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"")
    assert Links.elsewhere(str(tmp_path / "a b.png")) == f"{tmp_path.as_uri()}/a%20b.png"
    for uri in ("javascript:alert(1)", "https://example.org/a.png", "data:text/html,x", str(tmp_path / "gone.png")):
        assert Links.elsewhere(uri) is None
