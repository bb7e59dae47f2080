"""Every command and every snippet of the README and the pages under docs/, page by page, as a reader would run them.

`bash` blocks run in one real bash a page, with emulated buckets and services (`tests/support/named_in_docs.py`).
Jobs for Dataflow, Flink and Prism are planned and not launched. `python` blocks run after them in the same folder.
`text` blocks are not run; `make` targets are CI's.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.support.cookbook_data import write_cookbook_data
from tests.support.named_in_docs import run_here, stand_ins
from tests.support.paths import GOLDEN, ROOT, SAMPLE
from tests.support.shell import run_in_bash
from transforms import storage

TAR = SAMPLE / "emoji-00000.tar"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if re.search(r"^```(bash|python)$", page.read_text(), re.MULTILINE)]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STUBS = {  # by page, programs that do nothing
    "dataflow": ("git", "python3.11", "pip", "gcloud"),
    "runners": ("go", "pip"),
    "stores": ("pip",),
    "monitor": ("pip",),
}
TAKES = {"monitor": ("prometheus_client", "tensorboard", "wandb")}  # packages that the commands of a page are for
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def first_image() -> bytes:
    with tarfile.open(TAR) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and member.name.endswith(".png"):
                return content.read()
    raise AssertionError("no image in the sample")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the files that the pages name."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(GOLDEN / "vqgan_small", tmp_path / "vqgan_imagenet_f16_16384")
    (tmp_path / "photos").mkdir()
    for name in ("photo.png", "a.png", "photos/a.png"):
        (tmp_path / name).write_bytes(first_image())
    write_cookbook_data(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # its python is ours
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")  # as monitor.md says
    monkeypatch.setenv("REPOSITORY", "https://example.org/vqbeam")
    monkeypatch.syspath_prepend(tmp_path)  # models.md sets PYTHONPATH, and commands run in this process
    return tmp_path


def run_commands(page: Path, folder: Path, bucket: Callable[[str], str]) -> None:
    script = "\n".join(blocks(page, "bash"))
    with stand_ins(script, folder, bucket) as named:
        done = run_in_bash(script, lambda argv: run_here(argv, named, main), folder, STUBS.get(page.stem, ()))
    assert done.returncode == 0, f"{page.name}: bash ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(
    page: Path, reader: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [package for package in TAKES.get(page.stem, ()) if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")

    def bucket(scheme: str) -> str:
        """A folder of an emulated bucket, for this page alone, with a tar of images."""
        url = f"{request.getfixturevalue({'gs': 'gcs_bucket', 's3': 's3_bucket'}[scheme])}/{page.stem}"
        storage.put_bytes(TAR.read_bytes(), f"{url}/pairs/00000.tar")
        return url

    run_commands(page, reader, bucket)
    for number, snippet in enumerate(blocks(page, "python")):
        exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), {})
    if page.stem == "runners":
        printed = capsys.readouterr().out
        assert "a [" in printed
        assert all(f"r1 {sample} " in printed for sample in range(4))


def test_a_planned_job_on_dataflow_is_six_commands_away() -> None:
    first = re.sub(r"\\\n", " ", blocks(ROOT / "docs" / "dataflow.md", "bash")[0])
    commands = first.splitlines()
    assert len(commands) <= 6
    assert commands[0].startswith("git clone ")
    assert "--accelerator nvidia-l4:1" in commands[-1]
    assert commands[-1].endswith("--dry_run")


def test_a_broken_command_is_noticed(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    done = run_in_bash("vqbeam encode --value type:l4;count:1;driver", lambda argv: seen.append(argv) or 0, tmp_path)
    assert done.returncode == 127, "bash ends the command at its first semicolon, and knows no command count:1"
    assert seen == [["encode", "--value", "type:l4"]]


def test_exit_codes_and_words_arrive_as_in_a_shell(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def vqbeam(argv: list[str]) -> int:
        seen.append(argv)
        print("said")
        return 3

    done = run_in_bash("(cd /tmp; vqbeam 'a  b' \"c\" *.nothing) || echo code $?", vqbeam, tmp_path)
    assert (done.stdout, seen) == ("said\ncode 3\n", [["a  b", "c", "*.nothing"]])


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "benchmarks/README.md", "models/emoji/README.md"))]
)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve()
        assert target.exists(), f"{page.name} links to {path}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor[1:] in slugs, f"{page.name} links to {path}{anchor}"
