"""`vqbeam report` and `--report` on what each command writes: what is on the page, and what is refused."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from tests.support.images import encoded, scene
from tests.support.make_inputs import folder as write_files
from tests.support.make_inputs import table
from tests.support.run_command import SMALL, Outcome, decode, encode, run
from tests.support.small_jobs import ROWS, dataset, encode_small, png, write_tar

CAPTIONED = ("--caption_column", "caption", "--key_column", "key")


def page_of(output: str | Path) -> str:
    return (Path(output) / "report.html").read_text(encoding="utf-8")


def labels(page: str) -> list[str]:
    """What is written under each image, without tags."""
    found = re.findall(r"<figcaption>(.*?)</figcaption>\s*</figure>", page, re.DOTALL)
    return [" ".join(unescape(re.sub("<[^>]*>", "", text)).split()) for text in found]


def images(page: str) -> int:
    return len(re.findall(r'<img src="data:image/(?:png|jpeg);base64,', page))


def problems(page: str) -> str:
    return "\n".join(unescape(text) for text in re.findall(r'class="problem"><bdi>(.*?)</bdi>', page, re.DOTALL))


def cards(page: str) -> int:
    return page.count("<article")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("in"), 2)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> Outcome:
    return encode_small(source, tmp_path_factory.mktemp("tokens") / "out", tiny_model, "--report")


def test_encode_ends_with_originals_beside_reconstructions(tokens: Outcome) -> None:
    assert tokens.code == 0, tokens.err
    assert f"  report     {tokens.output}/report.html (" in tokens.out
    page = page_of(tokens.output)
    assert problems(page) == ""
    assert cards(page) == 18
    assert images(page) == 2 * 18
    found = labels(page)
    assert sum(label.startswith("original 2") for label in found) == 18
    assert sum(bool(re.fullmatch(r"reconstruction \d+\.\d dB", label)) for label in found) == 18
    assert "The worst of the sample" in page
    for text in ("<b>20</b> read", "<b>18</b> written", "<b>2</b> rejected", "The counts balance", "not_an_image"):
        assert text in page
    assert 'data-find="k9 ' in page, "an example of a rejected row"
    worst = [float(value) for value in re.findall(r"reconstruction <small>(\d+\.\d) dB", page)]
    assert worst[:4] == sorted(worst)[:4]


def test_the_psnr_is_that_of_the_pixels_that_were_encoded(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    done = encode_small(source, tmp_path / "out", tiny_model, "--evaluate", "--report")
    assert done.code == 0, done.err
    page = page_of(done.output)
    measured = {row["key"]: f"{row['psnr']:.1f} dB" for row in done.rows()}
    shown = re.findall(r'reconstruction <small>(\d+\.\d dB)</small>.*?class="key"><bdi>(\w+)</bdi>', page, re.DOTALL)
    assert {key: psnr for psnr, key in shown} == measured
    assert "The worst reconstructions" in page


def test_the_page_shows_the_job_that_is_there_now(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    encode_small(source, tmp_path / "out", tiny_model, "--report")
    before = page_of(tmp_path / "out")
    again = encode_small(source, tmp_path / "out", tiny_model, "--overwrite", "--limit", "10")
    assert again.code == 0, again.err
    assert not (tmp_path / "out" / "report.html").exists()
    assert run("report", tmp_path / "out").code == 0
    assert page_of(tmp_path / "out") != before


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_decoded_images_stand_beside_what_their_tokens_were_made_of(
    tmp_path: Path, tokens: Outcome, tiny_model: Path, layout: str
) -> None:
    done = decode(f"{tokens.output}/data", tmp_path / "out", tiny_model, "--image_layout", layout, "--report")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert problems(page) == ""
    assert images(page) == 2 * 18
    assert sum(bool(re.fullmatch(r"decoded \d+\.\d dB", label)) for label in labels(page)) == 18
    assert "share of the codebook" in page, "of the codes in the input"
    for link in re.findall(r'href="(\./[^"]*)"', page):
        assert (tmp_path / "out" / link).is_file()
    assert bool(re.search(r'href="\./images/', page)) == (layout == "files")


def test_images_from_tokens_of_others_stand_alone(tmp_path: Path, tokens: Outcome, tiny_model: Path) -> None:
    shutil.copytree(f"{tokens.output}/data", tmp_path / "moved")
    done = decode(tmp_path / "moved", tmp_path / "out", tiny_model, "--report")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert images(page) == 18
    assert "18 of 18 originals were not found" in problems(page)


def test_what_is_gone_since_is_told(tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    source = dataset(tmp_path / "in", 2)
    encode_small(source, tmp_path / "out", model)
    (source / "0.parquet").unlink()
    write_tar(source / "1.parquet", 0, 2)
    shutil.rmtree(model)
    done = run("report", tmp_path / "out")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert images(page) == 0
    assert "18 of 18 originals were not found" in problems(page)
    assert "no reconstructions: " in problems(page)
    assert cards(page) == 18, "captions and keys are there"


def test_images_of_a_prompt_are_shown_by_rank(tmp_path: Path, tiny_generator: Path) -> None:
    words = ["--model", tiny_generator, "--clip", tiny_generator, *SMALL, "--images_per_prompt", "3"]
    prompts = ["--prompt", "a red thing", "two & <b>three</b>"]
    done = run("generate", *words, *prompts, "--keep_tokens", "--report", output=tmp_path / "out")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert cards(page) == 2
    assert images(page) == 6
    ranks = [re.match(r"rank (\d) · (-?\d\.\d{3}) sample \d, seed 0", label) for label in labels(page)]
    assert [int(found[1]) for found in ranks if found] == [1, 2, 3] * 2
    scores = [float(found[2]) for found in ranks if found]
    assert scores == sorted(scores[:3], reverse=True) + sorted(scores[3:], reverse=True)
    assert "two &amp; &lt;b&gt;three&lt;/b&gt;" in page
    assert "share of the codebook" in page


def test_variations_stand_beside_their_original(
    tmp_path: Path, source: Path, tokens: Outcome, tiny_model: Path
) -> None:
    words = ["--model", tiny_model, *SMALL, "--images_per_input", "2", "--report"]
    for name, given in (("images", source), ("codes", f"{tokens.output}/data")):
        method = ["--method", "codes"] if name == "codes" else []
        done = run("vary", "--input", given, *words, *method, output=tmp_path / name)
        assert done.code == 0, done.err
        page = page_of(tmp_path / name)
        assert problems(page) == ""
        assert cards(page) == 18
        assert images(page) == 3 * 18


@pytest.mark.parametrize("kept", [(), ("--keep_images",)])
def test_ranked_rows_show_their_scores(tmp_path: Path, source: Path, tiny_clip: Path, kept: tuple[str, ...]) -> None:
    words = ["--input", source, "--clip", tiny_clip, *SMALL, *kept, "--report", "--rows_per_shard", ROWS]
    done = run("rank", *words, output=tmp_path / "out")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert problems(page) == ""
    assert sum(bool(re.match(r"score -?\d\.\d{3}", label)) for label in labels(page)) == 18 + 2 * 6
    assert images(page) == 18 + 2 * 6
    best = page.partition("The best scores")[2]
    scores = [float(label.split()[1]) for label in labels(best)[:12]]
    assert scores[:6] == sorted(scores[:6], reverse=True)
    assert scores[6:] == sorted(scores[6:])


def test_images_with_one_caption_are_ranked_among_themselves(tmp_path: Path, tiny_clip: Path) -> None:
    rows = {"key": [f"k{i}" for i in range(6)], "image": [png(i) for i in range(6)], "caption": ["a"] * 3 + ["b"] * 3}
    write_files(tmp_path / "in", {"a.parquet": table(rows)})
    done = run("rank", "--input", tmp_path / "in", "--clip", tiny_clip, *SMALL, "--report", output=tmp_path / "out")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert cards(page) == 2
    assert [label[:6] for label in labels(page)] == ["rank 1", "rank 2", "rank 3"] * 2


def test_several_tokenizers_stand_beside_the_original(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    words = ["--input", source, "--model", tiny_model, "--model", tiny_model, *SMALL, "--report"]
    done = run("evaluate", *words, output=tmp_path / "out")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert problems(page) == ""
    assert any(label.startswith("2: tiny ") for label in labels(page))
    assert page.count("share of the codebook") == 2


@pytest.mark.parametrize("more", [("--views", "flip"), ("--resize", "none", "--any_size")])
def test_rows_that_show_parts_or_have_grids_of_their_own(
    tmp_path: Path, tiny_model: Path, more: tuple[str, ...]
) -> None:
    rows = {"key": ["a", "b"], "image": [encoded(scene(16, 24), "PNG"), encoded(scene(32, 16), "PNG")]}
    write_files(tmp_path / "in", {"a.parquet": table(rows)})
    done = encode(tmp_path / "in", tmp_path / "out", tiny_model, *more, "--report")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert problems(page) == ""
    assert sum(bool(re.fullmatch(r"reconstruction \d+\.\d dB", label)) for label in labels(page)) == len(done.rows())


def test_an_export_is_reported_without_originals(tmp_path: Path, tokens: Outcome) -> None:
    assert run("export", "--input", f"{tokens.output}/data", output=tmp_path / "out").code == 0
    assert run("report", tmp_path / "out").code == 0
    page = page_of(tmp_path / "out")
    assert images(page) == 18
    assert "An export does not know its originals" in problems(page)


def test_an_export_in_files_that_are_not_read_is_refused(tmp_path: Path, tokens: Outcome) -> None:
    run("export", "--input", f"{tokens.output}/data", "--layout", "npy", output=tmp_path / "out")
    done = run("report", tmp_path / "out")
    assert done.code == 2
    assert "a report reads exports of the layout parquet" in done.err


def test_the_page_may_go_elsewhere(tmp_path: Path, tokens: Outcome) -> None:
    target = tmp_path / "pages" / "look.html"
    done = run("report", tokens.output, "--output", target, "--samples", "3", "--seed", "5")
    assert done.code == 0, done.err
    page = target.read_text()
    assert cards(page) == 3
    for link in re.findall(r'href="(\./[^"]*)"', page):
        assert (target.parent / link).is_file()
    assert f"vqbeam report {tokens.output} --samples 3 --seed 5" in unescape(page)


def test_a_job_that_is_not_done_is_reported_as_far_as_it_is(tmp_path: Path, source: Path, tiny_model: Path) -> None:
    encode_small(source, tmp_path / "out", tiny_model)
    (tmp_path / "out" / "_SUCCESS").unlink()
    (tmp_path / "out" / "_vqbeam" / "stats" / "00001.json").unlink()
    assert run("report", tmp_path / "out").code == 0
    page = page_of(tmp_path / "out")
    assert "1 of 2 shards done" in page
    assert cards(page) == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "nowhere"], "holds no plan of vqbeam"),
        (["report", "nowhere", "--samples", "0"], "'0': expected a number from 1 to 500"),
        (["evaluate", "--input", "x", "--report"], "--report: needs --output"),
        (["encode", "--input", "x", "--output", "y", "--report", "--no_wait"], "--no_wait"),
    ],
)
def test_what_makes_no_report_is_refused(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert message in done.err


def test_a_folder_in_a_bucket_is_reported_there(folder: str, tiny_model: Path) -> None:
    done = encode(f"{folder}/in/*.parquet", f"{folder}/out", tiny_model, "--report")
    assert done.code == 0, done.err
    page = done.read("report.html").decode()
    assert problems(page) == ""
    assert cards(page) == done.total("rows_written") > 0
    assert images(page) == 2 * cards(page)
    assert 'href="./data/00000.parquet"' in page


def test_a_job_that_wrote_nothing_says_why(tmp_path: Path, tiny_model: Path) -> None:
    write_files(tmp_path / "in", {"a.parquet": table({"key": ["a", "b"], "image": [b"no image"] * 2})})
    done = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--report")
    assert done.code == 1
    page = page_of(tmp_path / "out")
    for text in ("<b>0</b> written", "<b>2</b> rejected", "not_an_image", "Nothing was written.", ">failed<"):
        assert text in page
    assert cards(page) == 0


def test_captions_may_be_several_or_none(tmp_path: Path, tiny_model: Path) -> None:
    rows = {"key": ["a", "b", "c"], "image": [png(i) for i in range(3)], "caption": [["", "second"], None, []]}
    write_files(tmp_path / "in", {"a.parquet": table(rows)})
    done = encode(tmp_path / "in", tmp_path / "out", tiny_model, "--report")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert sorted(re.findall(r'class="caption"><bdi>(.*?)</bdi>', page)) == ["", "", "second"]
    assert "2 without a caption" in page


def test_images_that_rows_only_name_are_fetched_again(tmp_path: Path, tiny_model: Path) -> None:
    write_files(tmp_path / "in", {"images/a.png": png(1), "images/b.png": png(2)})
    rows = {"key": ["a", "b"], "image": ["images/a.png", "images/b.png"]}
    write_files(tmp_path / "in", {"a.parquet": table(rows)})
    words = [tmp_path / "in" / "a.parquet", tmp_path / "out", tiny_model]
    assert encode(*words, "--report").code == 0
    assert images(page_of(tmp_path / "out")) == 4
    (tmp_path / "in" / "images" / "b.png").unlink()
    assert run("report", tmp_path / "out").code == 0
    page = page_of(tmp_path / "out")
    assert images(page) == 3
    assert "1 of 2 originals were not found" in problems(page)


@pytest.mark.parametrize("kind", ["files", "tar", "csv"])
def test_originals_are_found_in_every_kind_of_input(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    given = tmp_path / "in"
    if kind == "tar":
        write_tar(given / "a.tar", 0, 12)
    else:
        write_files(given, {f"k{i:02}.png": png(i) for i in range(12)})
    if kind == "csv":
        write_files(given, {"a.csv": "key,image\n" + "".join(f"k{i:02},k{i:02}.png\n" for i in range(12))})
    source = {"files": given, "tar": given / "a.tar", "csv": given / "a.csv"}[kind]
    done = encode(source, tmp_path / "out", tiny_model, "--rows_per_shard", "5", "--evaluate", "--report")
    assert done.code == 0, done.err
    page = page_of(tmp_path / "out")
    assert problems(page) == ""
    measured = {row["key"]: f"{row['psnr']:.1f} dB" for row in done.rows()}
    shown = re.findall(r'reconstruction <small>(\d+\.\d dB)</small>.*?class="key"><bdi>(.*?)</bdi>', page, re.DOTALL)
    assert {key: psnr for psnr, key in shown} == measured
