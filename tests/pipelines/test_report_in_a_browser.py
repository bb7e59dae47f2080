"""The page in a real headless Chromium: it renders, filters, prints, asks for nothing, and runs none of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Page, browser, installed
from tests.support.make_inputs import folder, table
from tests.support.run_command import SMALL, encode, run
from tests.support.small_jobs import png

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium is installed")

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>document.title='hacked'</script>",
    "<img src=x onerror=alert(2)>",
    "<img src=https://example.org/pixel.png>",
    '" autofocus onfocus=alert(3) x="',
    "<svg onload=alert(4)><style>*{display:none}</style>",
    "<iframe src=javascript:alert(5)></iframe>",
    "<base href=https://example.org/><a href=javascript:alert(6)>click</a>",
    "\u202egnp.exe\u2066 turned",
)
TAME = ("a red apple", "a green apple", "a RED bicycle", "Ünïcode straße")
CAPTIONS = (*HOSTILE, *TAME)
SHOWN = "[...document.querySelectorAll('article')].filter(card => !card.hidden).length"
TYPED = """(text => {{
    const filter = document.getElementById('filter');
    filter.value = text;
    filter.dispatchEvent(new Event('input'));
}})({!r})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_generator: Path) -> dict[str, Path]:
    """The pages of tokens with rejected rows, and of drawn images."""
    here = tmp_path_factory.mktemp("pages")
    images = [png(i) for i in range(len(CAPTIONS))]
    keys = [f"k{i} {caption}"[:40] for i, caption in enumerate(CAPTIONS)]
    rows = {"key": [*keys, *HOSTILE[:8]], "image": [*images, *[b"none"] * 8], "caption": [*CAPTIONS, *HOSTILE[:8]]}
    folder(here / "in", {"a.parquet": table(rows)})
    done = encode(here / "in", here / "tokens", tiny_model, "--report")
    assert done.code == 0, done.err
    words = ["--model", tiny_generator, "--clip", tiny_generator, *SMALL, "--images_per_prompt", "2", "--report"]
    done = run("generate", *words, "--prompt", *HOSTILE[:4], *TAME, output=here / "drawn")
    assert done.code == 0, done.err
    return {name: here / name / "report.html" for name in ("tokens", "drawn")}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(params=["tokens", "drawn"])
def page(request: pytest.FixtureRequest, pages: dict[str, Path], tab: Page) -> Page:
    for seen in (tab.requests, tab.blocked, tab.complaints, tab.dialogs):
        seen.clear()
    tab.of_size(1280, 900)
    tab.open(pages[request.param])
    return tab


def type_in(page: Page, text: str) -> None:
    page.run(TYPED.format(text))


def test_the_page_renders_and_asks_for_nothing(page: Page) -> None:
    assert page.complaints == []
    own = page.run("location.href")
    assert {address for address in page.requests.values() if not address.startswith("data:image/")} == {own}
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.run("document.images.length") >= 2 * len(TAME)
    assert page.run(
        "[...document.querySelectorAll('figure.chart > svg')].every(c => c.getBoundingClientRect().height > 50)"
    )
    assert page.run("getComputedStyle(document.querySelector('.card')).display") == "block", "the style holds"


def test_no_text_of_the_data_runs_or_becomes_an_element(page: Page) -> None:
    assert page.dialogs == []
    assert page.run("document.title").startswith(("encode", "generate"))
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.querySelectorAll('iframe, base, [onerror], [onload], [onfocus]').length") == 0
    assert page.run("document.baseURI === location.href")
    shown = page.run("[...document.querySelectorAll('.caption')].map(node => node.textContent)")
    assert "<script>alert(1)</script>" in shown
    assert not any("\u202e" in text for text in shown)


def test_the_policy_stops_what_would_come_through(page: Page) -> None:
    page.run("window.ran = 0; document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='window.ran = 1'>`)")
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 2'}))")
    page.run("document.body.append(Object.assign(new Image(), {src: 'https://example.org/pixel.png'}))")
    page.settle()
    assert page.run("window.ran") == 0
    assert "Content Security Policy" in "".join(page.complaints)
    assert "https://example.org/pixel.png" in page.blocked


def test_the_filter_shows_rows_with_all_words_of_caption_or_key(page: Page) -> None:
    every = page.run(SHOWN)
    for text, count in (("apple", 2), ("red", 2), ("RED apple", 1), ("STRASSE", 0), ("ünïcode", 1), ("nothing", 0)):
        type_in(page, text)
        assert page.run(SHOWN) == count, text
    first = page.run("document.querySelector('article .key').textContent")
    type_in(page, first)
    assert page.run(SHOWN) >= 1
    type_in(page, "red apple")
    assert page.run("document.getElementById('shown').value").startswith("1 of ")
    type_in(page, "")
    assert page.run(SHOWN) == every
    assert page.complaints == []


@pytest.mark.parametrize("page", ["tokens"], indirect=True)
def test_the_filter_finds_rejected_rows_too(page: Page) -> None:
    listed = "[...document.querySelectorAll('.examples li')].filter(row => !row.hidden).length"
    assert page.run(listed) == 5
    type_in(page, "onerror")
    assert page.run(listed) == 1


@pytest.mark.parametrize("width", [390, 820, 1600])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.of_size(width, 844)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("Math.min(...[...document.querySelectorAll('.pictures img')].map(i => i.clientWidth))") >= 80


def test_it_is_dark_if_asked_and_light_on_paper(page: Page) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((sum, one) => sum + +one, 0)"
    page.of_size(1280, 900, scheme="dark")
    assert page.run(brightness) < 150
    page.of_size(1280, 900, media="print", scheme="dark")
    assert page.run(brightness) == 3 * 255
    assert page.run("getComputedStyle(document.querySelector('search')).display") == "none"
    assert page.pdf().startswith(b"%PDF")
