"""The docs as a site, and the README as a package index shows it."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.links import below, relinked
from tests.support.paths import ROOT

ASIDE = (
    "setup.py",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "NOTICE",
    "mkdocs.yml",
    "deploy",
    "docs",
    "vqbeam",
)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_MKDOCS_2_WARNING": "1", "VQBEAM_REPOSITORY": ""}
    command = [sys.executable, "-m", "mkdocs", "build"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ASIDE:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def test_the_site_has_all_pages_and_loads_nothing_from_elsewhere(copy: Path) -> None:
    pytest.importorskip("mkdocs")
    done = build(copy)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (copy / "build" / "docs").glob("*.html")}
    assert pages == {"index", "CHANGELOG", "404", *(path.stem for path in (ROOT / "docs").glob("*.md"))}
    for path in (copy / "build" / "docs").glob("*.html"):
        text = path.read_text()
        assert not re.search(r'<(script|img|iframe)[^>]*src="(https?:)?//', text), path.name
        assert not re.search(r'<link[^>]*rel="(stylesheet|preconnect|preload)"[^>]*href="(https?:)?//', text), path.name
    first = (copy / "build" / "docs" / "index.html").read_text()
    assert 'href="encode.html"' in first
    assert 'src="contact_sheet.jpg"' in first


@pytest.mark.parametrize("line", ["[a](missing.md)", "[a](encode.md#no-such-title)"])
def test_a_link_to_nowhere_fails_the_build(copy: Path, line: str) -> None:
    pytest.importorskip("mkdocs")
    with (copy / "docs" / "vary.md").open("a") as page:
        page.write(f"\n{line}\n")
    done = build(copy)
    assert done.returncode == 1
    assert "vary.md" in done.stderr


def test_links_lead_to_the_repository_or_are_text() -> None:
    page = "![i](docs/i.jpg) [a](docs/a.md#b) [c](https://example.org/c) [d](#e)"
    there = "![i](https://r/docs/i.jpg) [a](https://r/docs/a.md#b) [c](https://example.org/c) [d](#e)"
    assert relinked(page, below("https://r/")) == there
    assert relinked(page, below("")) == " a [c](https://example.org/c) [d](#e)"


def metadata(folder: Path, repository: str) -> email.message.Message:
    """What setup.py would tell a package index."""
    (folder / "models" / "emoji").mkdir(parents=True, exist_ok=True)  # it asks for that folder by name
    (folder / "made").mkdir(exist_ok=True)
    code = "import setuptools.build_meta as b, sys; print(b.prepare_metadata_for_build_wheel(sys.argv[1]))"
    environment = {**os.environ, "VQBEAM_REPOSITORY": repository}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "made")], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return email.message_from_string((folder / "made" / done.stdout.split()[-1] / "METADATA").read_text())


@pytest.mark.skipif(
    not (importlib.util.find_spec("setuptools.command.bdist_wheel") or importlib.util.find_spec("wheel")),
    reason="this setuptools describes no wheel by itself; pip gives it the package that does",
)
def test_a_package_index_gets_links_that_work_there(copy: Path) -> None:
    bare = metadata(copy, "").get_payload()
    assert "](docs/" not in bare
    assert "contact_sheet.jpg" not in bare
    told = metadata(copy, "https://example.org/vqbeam")
    assert "](https://example.org/vqbeam/docs/contact_sheet.jpg)" in told.get_payload()
    assert told["Project-URL"] == "Source, https://example.org/vqbeam"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == told["Version"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_templates_have_what_a_host_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in form["body"])
    assert len({part["id"] for part in form["body"]}) == len(form["body"])
